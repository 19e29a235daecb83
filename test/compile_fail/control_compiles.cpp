// Negative control: the check must report that this compiles.
// expect: a sentence that no compiler prints
int main() {}
