// Negative control: the check must report that the error message is a different one.
// expect: a sentence that no compiler prints
static_assert(false, "another sentence");
int main() {}
