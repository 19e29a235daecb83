// All operations of the library.
#pragma once
#include "chunked_attention.hpp"
#include "conv_stack.hpp"
#include "gated_fusion.hpp"
#include "core/version.hpp"
#include "ema.hpp"
