// A control: the harness must report that this fails for another reason than the one it names.
// expect: a sentence that no compiler prints
static_assert(false, "another sentence");
int main() {}
