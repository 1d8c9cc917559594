/* options.c: the one option parser. A command describes its options as a table of rows
 * (name, letter, kind, where to, argument, help, range); this file reads argv against it, prints
 * the help from it, and suggests the nearest name for one it does not know.
 *
 *   --name value   --name=value   -x value   --flag   --   (the rest are no options)
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

int cli_usage(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("vitreous: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return CLI_USAGE;
}

/* Levenshtein distance of two short words; long ones count as far. */
static int distance(const char *a, const char *b) {
    enum { MAX = 32 };
    size_t n = strlen(a), m = strlen(b);
    int row[MAX + 1];
    if (n > MAX || m > MAX) return MAX;
    for (size_t j = 0; j <= m; j++) row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[m];
}

const char *cli_nearest(const char *word, const char *const *candidates, int n) {
    const char *best = NULL;
    int least = (int)strlen(word) / 2 + 2;
    for (int i = 0; i < n; i++) {
        int d = distance(word, candidates[i]);
        if (d < least) {
            least = d;
            best = candidates[i];
        }
    }
    return best;
}

int cli_choice(const char *word, const char *const *names) {
    for (int i = 0; names[i]; i++)
        if (strcmp(word, names[i]) == 0) return i;
    return -1;
}

static void print_help(const char *usage, const char *about, const cli_option *options) {
    printf("vitreous %s\n%s\n\n", usage, about);
    for (const cli_option *o = options; o->name; o++) {
        char left[64];
        snprintf(left, sizeof left, "%s%c%s --%s %s", o->letter ? "-" : " ",
                 o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name, o->arg ? o->arg : "");
        printf("  %-28s %s%s\n", left, o->help, o->kind == CLI_LIST ? " (may be repeated)" : "");
    }
    printf("      %-24s %s\n", "--help", "this text");
}

static int unknown(const char *arg, const char *name, size_t len, const cli_option *options) {
    const char *names[64];
    char word[64];
    int n = 0;
    for (const cli_option *o = options; o->name && n < 64; o++) names[n++] = o->name;
    snprintf(word, sizeof word, "%.*s", (int)(len < 60 ? len : 60), name);
    const char *near = cli_nearest(word, names, n);
    if (near) return cli_usage("unknown option %s (did you mean --%s?)", arg, near);
    return cli_usage("unknown option %s (see --help)", arg);
}

static int append(cli_list *list, const char *value) {
    const char **v = realloc(list->v, ((size_t)list->n + 1) * sizeof *v);
    if (!v) return cli_usage("out of memory");
    v[list->n++] = value;
    list->v = v;
    return -1;
}

static int store(const cli_option *o, const char *value) {
    char *end;
    errno = 0;
    if (o->kind == CLI_STR) {
        *(const char **)o->to = value;
        return -1;
    }
    if (o->kind == CLI_LIST) return append(o->to, value);
    double number = 0;
    if (o->kind == CLI_INT) {
        long long v = strtoll(value, &end, 10);
        if (end != value && !*end && !errno) *(int64_t *)o->to = v;
        number = (double)v;
    } else {
        number = strtod(value, &end);
        if (end != value && !*end) *(double *)o->to = number;
    }
    if (end == value || *end || errno || !isfinite(number))
        return cli_usage("--%s: expected %s, got \"%s\"", o->name,
                         o->kind == CLI_INT ? "a whole number" : "a number", value);
    if ((o->lo != 0 || o->hi != 0) && (number < o->lo || number > o->hi))
        return cli_usage("--%s: expected %.15g to %.15g, got %s", o->name, o->lo, o->hi, value);
    return -1;
}

static const cli_option *find(const cli_option *options, const char *arg, size_t *name_len) {
    bool is_long = arg[1] == '-';
    *name_len = strcspn(arg + 2, "=");
    for (const cli_option *o = options; o->name; o++) {
        if (is_long ? strlen(o->name) == *name_len && memcmp(o->name, arg + 2, *name_len) == 0
                    : o->letter == arg[1] && !arg[2])
            return o;
    }
    return NULL;
}

int cli_parse(const char *usage, const char *about, const cli_option *options, int argc,
              char **argv, cli_list *rest) {
    bool only_rest = false;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        int rc = -1;
        size_t len;
        if (only_rest || arg[0] != '-' || !arg[1]) {
            if (!rest) return cli_usage("unexpected argument \"%s\" (usage: %s)", arg, usage);
            rc = append(rest, arg);
        } else if (strcmp(arg, "--") == 0) {
            only_rest = true;
        } else if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            print_help(usage, about, options);
            return CLI_OK;
        } else {
            const cli_option *o = find(options, arg, &len);
            const char *eq = arg[1] == '-' ? strchr(arg, '=') : NULL;
            if (!o) return unknown(arg, arg + (arg[1] == '-' ? 2 : 1), len, options);
            if (o->kind == CLI_FLAG) {
                if (eq) return cli_usage("--%s takes no value", o->name);
                *(bool *)o->to = true;
            } else if (eq) {
                rc = store(o, eq + 1);
            } else if (i + 1 < argc) {
                rc = store(o, argv[++i]);
            } else {
                return cli_usage("--%s needs a value: %s", o->name, o->arg);
            }
        }
        if (rc >= 0) return rc;
    }
    return -1;
}
