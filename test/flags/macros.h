/* Macros that other headers define. Every header of the library must compile after them. */
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define check(x) must_not_be_used
#define require(x) must_not_be_used
#define near
#define far
#define small char
#define interface struct
#define I must_not_be_used
#define IN
#define OUT
#define DELETE must_not_be_used
#define ERROR must_not_be_used
#define NO_ERROR must_not_be_used
