/* grounding.c: boxes and points in an answer -> pixels of the upright original they belong to.
 *
 * Which picture, when there are several? In this order ("image_by" says which rule it was):
 *   only      there is one
 *   answer    the box's own object names it ("image": 2, "image_index": 0, "label" of "picture 2"), or the
 *             text before the box did ("Picture 2: ...", "第二张图")
 *   question  the last question names exactly one
 *   last      nothing says: the last one
 * Pictures count from 1, as in the "Picture 1:" of the prompt; from 0 if the answer names a picture 0.
 */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>

#include "serve/chat.h"

enum { MAX_MARKS = 1000 };
typedef struct mention { const char *at; int number; } mention;
typedef struct mentions { mention *v; size_t n, cap; } mentions;     /* in the order of the text */

/* ---- "picture 2" in a text ---------------------------------------------------------------- */

typedef struct word { const char *text; int number; } word;

static size_t match(const char *p, const char *text) {
    size_t n = strlen(text);
    return strncasecmp(p, text, n) ? 0 : n;
}

/* The longest of `words` (ended by NULL) at p: its length, and its entry. */
static size_t any_of(const char *p, const word *words, const word **which) {
    for (; words->text; words++) {
        size_t n = match(p, words->text);
        if (n) return *which = words, n;
    }
    return 0;
}

/* Digits or a Chinese numeral at p. */
static size_t number_at(const char *p, int *number) {
    static const word numerals[] = {{"一", 1}, {"二", 2}, {"三", 3}, {"四", 4}, {"五", 5},
                                    {"六", 6}, {"七", 7}, {"八", 8}, {NULL, 0}};
    size_t n = strspn(p, "0123456789");
    const word *w;
    if (n > 0 && n < 4 && !(p[n] == '.' && isdigit((unsigned char)p[n + 1])))
        return *number = atoi(p), n;
    if (n || !(n = any_of(p, numerals, &w))) return 0;
    *number = w->number;
    return n;
}

static const word nouns[] = {{"pictures", 0}, {"picture", 0}, {"images", 0}, {"image", 0},
                             {"photo", 0},    {"img", 0},     {"图片", 0},   {"图像", 0},
                             {"照片", 0},     {"图", 0},      {NULL, 0}};

/* After a noun: "2", " #2", "_index\": 2". */
static bool number_after(const char *p, int *number) {
    static const word index[] = {{"index", 0}, {"number", 0}, {"idx", 0}, {"id", 0}, {NULL, 0}};
    const word *w;
    p += strspn(p, " _#");
    p += any_of(p, index, &w);
    if (*p == '"') {                  /* a key of JSON */
        p++;
        p += strspn(p, " ");
        if (*p++ != ':') return false;
        p += strspn(p, " \"");
    } else {
        p += strspn(p, " ");
    }
    return number_at(p, number) > 0;
}

/* "second image", "第2张". */
static bool ordinal_at(const char *p, int *number) {
    static const word ordinals[] = {{"first ", 1}, {"second ", 2}, {"third ", 3}, {"fourth ", 4},
                                    {"1st ", 1},   {"2nd ", 2},    {"3rd ", 3},   {"4th ", 4},
                                    {NULL, 0}};
    static const word measures[] = {{"张", 0}, {"幅", 0}, {"个图", 0}, {NULL, 0}};
    const word *w, *noun;
    size_t n = any_of(p, ordinals, &w);
    if (n && any_of(p + n, nouns, &noun)) return *number = w->number, true;
    if (!(n = match(p, "第"))) return false;
    p += n;
    n = number_at(p, number);
    return n && any_of(p + n, measures, &w);
}

/* The first mention at `p` or behind it, in the text that begins at `text`; NULL: none. */
static const char *next_mention(const char *text, const char *p, int *number) {
    for (; *p; p++) {
        const word *w;
        if (p > text && isalnum((unsigned char)p[-1]) && isalnum((unsigned char)*p)) continue;
        size_t n = any_of(p, nouns, &w);
        if ((n && number_after(p + n, number)) || ordinal_at(p, number)) return p;
    }
    return NULL;
}

/* All that name one of `images` pictures, their number made an index. */
static mentions find_mentions(const char *text, int images) {
    mentions m = {0};
    int number, base = 1;
    for (const char *p = text; (p = next_mention(text, p, &number)); p++) {
        if (m.n == m.cap) {
            m.cap = m.cap ? 2 * m.cap : 64;
            m.v = realloc(m.v, m.cap * sizeof *m.v);
            vl_assert(m.v, "out of memory for %zu mentions of pictures", m.cap);
        }
        m.v[m.n++] = (mention){p, number};
        if (number == 0) base = 0;
    }
    size_t kept = 0;
    for (size_t i = 0; i < m.n; i++) {
        m.v[i].number -= base;
        if (m.v[i].number >= 0 && m.v[i].number < images) m.v[kept++] = m.v[i];
    }
    m.n = kept;
    return m;
}

/* How many mentions stand before `at`. */
static size_t mentions_before(const mentions *m, const char *at) {
    size_t lo = 0, hi = m->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (m->v[mid].at < at) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

/* The one picture that the question names; -1: none or several. */
static int asked_for(const json_t *question, int images) {
    int found = -1;
    size_t parts = json_is_array(question) ? json_array_size(question) : 1;
    for (size_t i = 0; i < parts; i++) {
        const json_t *part = json_is_array(question) ? json_array_get(question, i) : question;
        const char *text =
            json_string_value(json_is_object(part) ? json_object_get(part, "text") : part);
        int number;
        for (const char *p = text; p && (p = next_mention(text, p, &number)); p++) {
            int image = number - 1;
            if (image < 0 || image >= images || image == found) continue;
            if (found >= 0) return -1;
            found = image;
        }
    }
    return found;
}

const json_t *chat_question(const chat *c) {
    for (size_t i = json_array_size(c->messages); i-- > 0;) {
        const json_t *m = json_array_get(c->messages, i);
        const char *role = json_string_value(json_object_get(m, "role"));
        if (role && !strcmp(role, "user")) return json_object_get(m, "content");
    }
    return NULL;
}

/* ---- marks -------------------------------------------------------------------------------- */

/* "[n, n, ...]" or "(n,n),(n,n)" at p -> how many numbers, up to max. */
static int read_numbers(const char *p, double *out, int max) {
    int n = 0;
    while (n < max) {
        while (*p && strchr(" \t\n[](),", *p)) p++;
        char *end;
        double x = strtod(p, &end);
        if (end == p || !isfinite(x)) break;
        out[n++] = x;
        p = end;
    }
    return n;
}

/* The braces around `at`: false if it stands in none of its own. */
static bool own_object(const char *text, const char *at, const char **open, const char **close) {
    const char *p = at;
    while (p > text && *p != '{' && *p != '}') p--;
    *open = p;
    *close = strchr(at, '}');
    return *p == '{' && *close;
}

/* The "label" beside a box: within the same braces. */
static void add_label(json_t *o, const char *open, const char *close) {
    const char *key = strstr(open, "\"label\"");
    if (!key || key > close) return;
    const char *colon = strchr(key, ':');
    const char *from = colon ? strchr(colon, '"') : NULL;
    const char *to = from ? strchr(from + 1, '"') : NULL;
    if (to && to < close) {
        json_t *label = json_stringn(from + 1, (size_t)(to - from - 1));
        if (label) json_object_set_new(o, "label", label);
    }
}

typedef struct finder {
    const char *text;
    const json_t *reports;
    mentions m;
    int images, asked;
} finder;

/* The picture that the mark at `at` belongs to; its own object is open..close, or open is NULL. */
static int picture_of(const finder *f, const char *at, const char *open, const char *close,
                      const char **by) {
    size_t i = mentions_before(&f->m, at), first = open ? mentions_before(&f->m, open) : f->m.n;
    int before = i ? f->m.v[i - 1].number : -1;
    int own = first < f->m.n && f->m.v[first].at < close ? f->m.v[first].number : -1;
    *by = f->images == 1               ? "only"
          : own >= 0 || before >= 0    ? "answer"
          : f->asked >= 0              ? "question"
                                       : "last";
    if (f->images == 1) return 0;
    return own >= 0 ? own : before >= 0 ? before : f->asked >= 0 ? f->asked : f->images - 1;
}

static json_t *place(const finder *f, const double *v, int n, int image, const char *by) {
    const json_t *r = json_array_get(f->reports, (size_t)image);
    double w = json_number_value(json_object_get(r, "width"));
    double h = json_number_value(json_object_get(r, "height"));
    json_t *rel = json_array(), *pix = json_array();
    for (int i = 0; i < n; i++) {
        double x = v[i] < 0 ? 0 : v[i] > 1000 ? 1000 : v[i];
        json_array_append_new(rel, json_real(x));
        json_array_append_new(pix, json_real(x / 1000 * (i % 2 ? h : w)));
    }
    return json_pack("{s:s,s:o,s:o,s:i,s:s}", "type", n == 4 ? "box" : "point", "relative", rel,
                     "pixels", pix, "image", image, "image_by", by);
}

/* Qwen3-VL writes {"bbox_2d": [x1, y1, x2, y2], "label": ...} and {"point_2d": [x, y], ...} in
 * thousandths of the (oriented) picture's sides. */
json_t *grounding_find(const char *text, const json_t *question, const json_t *reports) {
    static const struct { const char *key; int n; } forms[] = {
        {"bbox_2d", 4}, {"point_2d", 2}, {"<|box_start|>", 4}};
    finder f = {.text = text, .reports = reports, .images = (int)json_array_size(reports)};
    json_t *list = NULL;
    if (!text || !f.images) return NULL;
    if (f.images > 1) f.m = find_mentions(text, f.images);
    f.asked = f.images > 1 ? asked_for(question, f.images) : -1;
    for (size_t k = 0; k < sizeof forms / sizeof *forms; k++) {
        for (const char *p = text; (p = strstr(p, forms[k].key)) && json_array_size(list) < MAX_MARKS; p++) {
            double v[4];
            const char *q = p + strlen(forms[k].key), *open, *close, *by;
            q += strspn(q, "\" :\t\n");
            if (read_numbers(q, v, forms[k].n) != forms[k].n) continue;
            bool object = own_object(text, p, &open, &close);
            int image = picture_of(&f, p, object ? open : NULL, close, &by);
            json_t *o = place(&f, v, forms[k].n, image, by);
            if (object) add_label(o, open, close);
            if (!list) list = json_array();
            json_array_append_new(list, o);
        }
    }
    free(f.m.v);
    return list;
}
