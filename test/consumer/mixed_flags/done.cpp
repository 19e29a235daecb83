// All programs have run by now: each runs when it is built.
int main() {}
