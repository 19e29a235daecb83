// A control: the harness must report that this compiles.
// expect: a sentence that no compiler prints
int main() {}
