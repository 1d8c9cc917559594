/* doc.h: one report, many forms. A report is built once as headings, paragraphs, tables and plots,
 * and written as plain text, Markdown, JSON, CSV or one self-contained HTML page.
 *
 * It is held as JSON values (Jansson): nothing has a fixed size, one json_decref frees it all.
 */
#ifndef VL_DOC_H
#define VL_DOC_H

#include <jansson.h>
#include <stdio.h>

typedef struct doc {
    json_t *title, *blocks; /* blocks: objects of kind heading, text, table, plot */
    json_t *rows, *row;     /* where doc_cell() writes; borrowed                  */
} doc;
typedef enum doc_form { DOC_TEXT, DOC_MD, DOC_JSON, DOC_CSV, DOC_HTML, DOC_FORMS } doc_form;

void doc_begin(doc *d, const char *title);
void doc_end(doc *d);
void doc_heading(doc *d, const char *text);
void doc_text(doc *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* name: the key in JSON. columns: names separated by '|'. */
void doc_table(doc *d, const char *name, const char *columns);
void doc_row(doc *d); /* starts one */
/* A cell of text, or of a number shown with fmt; NAN is shown as "-" and is null in JSON. */
void doc_cell(doc *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void doc_num(doc *d, double v, const char *fmt);
/* Three digits at least, and never "1.3e+04": for figures of any size. */
static inline const char *doc_digits(double v) { return v >= 1000 ? "%.0f" : "%.3g"; }
/* svg: malloc'd text, freed here; shown in HTML only. */
void doc_plot(doc *d, const char *caption, char *svg);
/* The form of a file name (.md, .json, .csv, .html), or DOC_TEXT. */
doc_form doc_form_of(const char *path);
/* 0, or -1 when the file could not be written in full. */
int doc_write(const doc *d, doc_form form, FILE *f);
int doc_write_file(const doc *d, doc_form form, const char *path); /* says what went wrong */

#endif
