// All operations of the library.
#pragma once
#include "chunked_attention.hpp"
#include "conv_stack.hpp"
#include "core/version.hpp"
#include "ema.hpp"
#include "gated_fusion.hpp"
