// What the policies know of the CPU: detail::register_bytes.
#pragma once
#include "../arch/host.hpp"
