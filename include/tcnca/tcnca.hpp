// All operations of the library.
#pragma once
#include "conv_stack.hpp"
#include "core/version.hpp"
#include "ema.hpp"
