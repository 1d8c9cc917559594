/* doc.c: building a report and writing it in its five forms (see doc.h).
 * A cell is [shown text] or [shown text, number]. */
#include "cli/doc.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- building -------------------------------------------------------------------------------- */

static json_t *vtext(const char *fmt, va_list ap) {
    char buf[2048];
    vsnprintf(buf, sizeof buf, fmt, ap);
    json_t *s = json_string(buf);
    return s ? s : json_string("(text that is not UTF-8)");
}

void doc_begin(doc *d, const char *title) {
    *d = (doc){.title = json_string(title), .blocks = json_array()};
}

void doc_end(doc *d) {
    json_decref(d->title);
    json_decref(d->blocks);
    *d = (doc){0};
}

static json_t *block(doc *d, const char *kind) {
    json_t *b = json_pack("{s:s}", "kind", kind);
    json_array_append_new(d->blocks, b);
    return b;
}

void doc_heading(doc *d, const char *text) {
    json_object_set_new(block(d, "heading"), "text", json_string(text));
}

void doc_text(doc *d, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    json_object_set_new(block(d, "text"), "text", vtext(fmt, ap));
    va_end(ap);
}

void doc_table(doc *d, const char *name, const char *columns) {
    json_t *b = block(d, "table"), *names = json_array();
    for (const char *p = columns; *p;) {
        size_t n = strcspn(p, "|");
        json_array_append_new(names, json_stringn(p, n));
        p += n + (p[n] == '|');
    }
    d->rows = json_array();
    json_object_set_new(b, "name", json_string(name));
    json_object_set_new(b, "columns", names);
    json_object_set_new(b, "rows", d->rows);
}

void doc_row(doc *d) {
    d->row = json_array();
    json_array_append_new(d->rows, d->row);
}

void doc_cell(doc *d, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    json_array_append_new(d->row, json_pack("[o]", vtext(fmt, ap)));
    va_end(ap);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
void doc_num(doc *d, double v, const char *fmt) {
    char buf[128];
    if (!isfinite(v)) snprintf(buf, sizeof buf, "-");
    else snprintf(buf, sizeof buf, fmt, v);
    json_array_append_new(d->row, isfinite(v) ? json_pack("[s,f]", buf, v)
                                              : json_pack("[s,n]", buf));
}
#pragma GCC diagnostic pop

void doc_plot(doc *d, const char *caption, char *svg) {
    json_t *b = block(d, "plot");
    json_object_set_new(b, "text", json_string(caption));
    json_object_set_new(b, "svg", json_string(svg ? svg : ""));
    free(svg);
}

/* ---- writing --------------------------------------------------------------------------------- */

static const char *str(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static const char *cell_text(const json_t *cell) {
    const char *s = json_string_value(json_array_get(cell, 0));
    return s ? s : "";
}

static bool is_number(const json_t *cell) { return json_array_size(cell) > 1; }

/* Columns that a terminal shows for UTF-8 text: one per character. */
static int width(const char *s) {
    int n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

static void pad(FILE *f, const char *s, int to, bool right) {
    int gap = to - width(s);
    if (right) fprintf(f, "%*s%s", gap > 0 ? gap : 0, "", s);
    else fprintf(f, "%s%*s", s, gap > 0 ? gap : 0, "");
}

static void table_text(const json_t *b, FILE *f) {
    const json_t *columns = json_object_get(b, "columns"), *rows = json_object_get(b, "rows");
    enum { MAX = 32 };
    int w[MAX] = {0};
    size_t i, j, n = json_array_size(columns) < MAX ? json_array_size(columns) : MAX;
    json_t *row;
    for (j = 0; j < n; j++) w[j] = width(json_string_value(json_array_get(columns, j)));
    json_array_foreach(rows, i, row)
        for (j = 0; j < n; j++) {
            int c = width(cell_text(json_array_get(row, j)));
            if (c > w[j]) w[j] = c;
        }
    const json_t *first = json_array_get(rows, 0);
    for (j = 0; j < n; j++) {
        pad(f, json_string_value(json_array_get(columns, j)), w[j],
            is_number(json_array_get(first, j)));
        fputs(j + 1 < n ? "  " : "\n", f);
    }
    json_array_foreach(rows, i, row)
        for (j = 0; j < n; j++) {
            const json_t *c = json_array_get(row, j);
            pad(f, cell_text(c), j + 1 < n || is_number(c) ? w[j] : 0, is_number(c));
            fputs(j + 1 < n ? "  " : "\n", f);
        }
    fputc('\n', f);
}

static void table_md(const json_t *b, FILE *f) {
    const json_t *columns = json_object_get(b, "columns"), *rows = json_object_get(b, "rows");
    size_t i, j;
    json_t *row, *cell;
    json_array_foreach(columns, j, cell) fprintf(f, "| %s ", json_string_value(cell));
    fputs("|\n", f);
    json_array_foreach(columns, j, cell)
        fputs(is_number(json_array_get(json_array_get(rows, 0), j)) ? "|---:" : "|---", f);
    fputs("|\n", f);
    json_array_foreach(rows, i, row) {
        json_array_foreach(row, j, cell) {
            fputs("| ", f);
            for (const char *s = cell_text(cell); *s; s++) {
                if (*s == '|') fputc('\\', f);
                fputc(*s, f);
            }
            fputc(' ', f);
        }
        fputs("|\n", f);
    }
    fputc('\n', f);
}

static void table_csv(const json_t *b, FILE *f) {
    size_t i, j;
    json_t *row, *cell;
    fprintf(f, "# %s\n", str(b, "name"));
    json_array_foreach(json_object_get(b, "columns"), j, cell)
        fprintf(f, "%s%s", j ? "," : "", json_string_value(cell));
    fputc('\n', f);
    json_array_foreach(json_object_get(b, "rows"), i, row) {
        json_array_foreach(row, j, cell) {
            if (j) fputc(',', f);
            if (is_number(cell) && json_is_number(json_array_get(cell, 1))) {
                fprintf(f, "%.9g", json_number_value(json_array_get(cell, 1)));
                continue;
            }
            fputc('"', f);
            for (const char *s = cell_text(cell); *s; s++) {
                if (*s == '"') fputc('"', f);
                fputc(*s, f);
            }
            fputc('"', f);
        }
        fputc('\n', f);
    }
}

static void escaped(FILE *f, const char *s) {
    for (; *s; s++) {
        if (*s == '<') fputs("&lt;", f);
        else if (*s == '>') fputs("&gt;", f);
        else if (*s == '&') fputs("&amp;", f);
        else fputc(*s, f);
    }
}

/* A cell that says no or that a figure is predicted is coloured by its first word. */
static const char *class_of(const char *s) {
    static const char *const words[][2] = {
        {"infeasible", "bad"}, {"impossible", "bad"}, {"implausible", "warn"}, {"measured", "good"},
        {"predicted", "pred"}, {"slower", "bad"},     {"faster", "good"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strncmp(s, words[i][0], strlen(words[i][0]))) return words[i][1];
    return "";
}

static void table_html(const json_t *b, FILE *f) {
    size_t i, j;
    json_t *row, *cell;
    fprintf(f, "<div class=scroll><table id=\"%s\"><thead><tr>", str(b, "name"));
    json_array_foreach(json_object_get(b, "columns"), j, cell) {
        fputs("<th>", f);
        escaped(f, json_string_value(cell));
    }
    fputs("<tbody>\n", f);
    json_array_foreach(json_object_get(b, "rows"), i, row) {
        fputs("<tr>", f);
        json_array_foreach(row, j, cell) {
            const char *s = cell_text(cell);
            fprintf(f, "<td class=\"%s %s\">", is_number(cell) ? "n" : "", class_of(s));
            escaped(f, s);
        }
        fputc('\n', f);
    }
    fputs("</table></div>\n", f);
}

static const char style[] =
    "<style>:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:76em;"
    "margin:2em auto;padding:0 1em}.scroll{overflow-x:auto}table{border-collapse:collapse;"
    "margin:.6em 0 1.4em}td,th{padding:.2em .7em;text-align:left;vertical-align:top;"
    "border-bottom:1px solid #8884}.n{text-align:right;font-variant-numeric:tabular-nums}"
    "th{font-weight:600}.bad{color:#c62828}.warn{color:#b26a00}.good{color:#2e7d32}"
    ".pred{color:#7b5ea7;font-style:italic}figure{margin:1em 0}figcaption{font-size:.9em;"
    "opacity:.8}svg{max-width:100%;height:auto;background:#fff;border-radius:6px}</style>\n";

static void write_html(const doc *d, FILE *f) {
    size_t i;
    json_t *b;
    fputs("<!doctype html><html lang=en><meta charset=utf-8>"
          "<meta name=viewport content=\"width=device-width\"><title>", f);
    escaped(f, json_string_value(d->title));
    fprintf(f, "</title>%s<h1>", style);
    escaped(f, json_string_value(d->title));
    fputs("</h1>\n", f);
    json_array_foreach(d->blocks, i, b) {
        const char *kind = str(b, "kind");
        if (!strcmp(kind, "table")) {
            table_html(b, f);
        } else if (!strcmp(kind, "plot")) {
            fprintf(f, "<figure>%s<figcaption>", str(b, "svg"));
            escaped(f, str(b, "text"));
            fputs("</figcaption></figure>\n", f);
        } else {
            bool heading = !strcmp(kind, "heading");
            fputs(heading ? "<h2>" : "<p>", f);
            escaped(f, str(b, "text"));
            fputs(heading ? "</h2>\n" : "</p>\n", f);
        }
    }
    fputs("</html>\n", f);
}

/* {"title", "notes": [...], "<table name>": [{column: value, ...}, ...]} */
static int write_json(const doc *d, FILE *f) {
    size_t i, k, j;
    json_t *b, *row, *cell, *out = json_object(), *notes = json_array();
    json_object_set(out, "title", d->title);
    json_object_set_new(out, "notes", notes);
    json_array_foreach(d->blocks, i, b) {
        if (!strcmp(str(b, "kind"), "text")) json_array_append(notes, json_object_get(b, "text"));
        if (strcmp(str(b, "kind"), "table")) continue;
        json_t *table = json_array();
        json_array_foreach(json_object_get(b, "rows"), k, row) {
            json_t *o = json_object();
            json_array_foreach(row, j, cell) json_object_set(
                o, json_string_value(json_array_get(json_object_get(b, "columns"), j)),
                json_array_get(cell, is_number(cell) ? 1 : 0));
            json_array_append_new(table, o);
        }
        json_object_set_new(out, str(b, "name"), table);
    }
    int rc = json_dumpf(out, f, JSON_INDENT(1) | JSON_REAL_PRECISION(12));
    fputc('\n', f);
    json_decref(out);
    return rc;
}

static void write_plain(const doc *d, doc_form form, FILE *f) {
    size_t i;
    json_t *b;
    if (form != DOC_CSV)
        fprintf(f, "%s%s\n\n", form == DOC_MD ? "# " : "", json_string_value(d->title));
    json_array_foreach(d->blocks, i, b) {
        const char *kind = str(b, "kind"), *text = str(b, "text");
        if (!strcmp(kind, "table")) {
            (form == DOC_TEXT ? table_text : form == DOC_MD ? table_md : table_csv)(b, f);
        } else if (form != DOC_CSV && !strcmp(kind, "heading")) {
            fprintf(f, form == DOC_MD ? "## %s\n\n" : "== %s\n\n", text);
        } else if (form != DOC_CSV && !strcmp(kind, "text")) {
            fprintf(f, "%s\n\n", text);
        }
    }
}

int doc_write(const doc *d, doc_form form, FILE *f) {
    int rc = 0;
    if (form == DOC_JSON) rc = write_json(d, f);
    else if (form == DOC_HTML) write_html(d, f);
    else write_plain(d, form, f);
    return fflush(f) || ferror(f) ? -1 : rc;
}

doc_form doc_form_of(const char *path) {
    static const char *const ends[] = {"", ".md", ".json", ".csv", ".html"};
    const char *dot = strrchr(path, '.');
    for (int i = DOC_MD; dot && i < DOC_FORMS; i++)
        if (!strcmp(dot, ends[i])) return (doc_form)i;
    return DOC_TEXT;
}

int doc_write_file(const doc *d, doc_form form, const char *path) {
    FILE *f = fopen(path, "w");
    int rc = f ? doc_write(d, form, f) : -1;
    if (f && fclose(f)) rc = -1;
    if (rc) fprintf(stderr, "vitreous: %s: cannot be written\n", path);
    return rc;
}
