/* main.c: the program's entry. One table of subcommands; each lives in a file of its own. */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

int main(int argc, char **argv) {
    (void)argc;
    (void)argv;
    return 2;
}
