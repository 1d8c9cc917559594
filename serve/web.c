/* web.c: the page, embedded in the binary (see Makefile.inc): nothing is fetched from elsewhere. */
#include "serve/embed.h"
#include "serve/routes.h"

EMBED(index, "serve/web/index.html");
EMBED(style, "serve/web/style.css");
EMBED(app, "serve/web/app.js");
EMBED(chat, "serve/web/chat.js");
EMBED(pictures, "serve/web/pictures.js");
EMBED(markdown, "serve/web/markdown.js");
EMBED(text, "serve/web/text.js");
EMBED(icon, "serve/web/icon.svg");

static const struct { const char *name, *type, *data, *end; } assets[] = {
    {"", "text/html; charset=utf-8", web_index, web_index_end},
    {"style.css", "text/css; charset=utf-8", web_style, web_style_end},
    {"app.js", "text/javascript; charset=utf-8", web_app, web_app_end},
    {"chat.js", "text/javascript; charset=utf-8", web_chat, web_chat_end},
    {"pictures.js", "text/javascript; charset=utf-8", web_pictures, web_pictures_end},
    {"markdown.js", "text/javascript; charset=utf-8", web_markdown, web_markdown_end},
    {"text.js", "text/javascript; charset=utf-8", web_text, web_text_end},
    {"icon.svg", "image/svg+xml", web_icon, web_icon_end},
};

void route_page(http_request *r) {
    for (size_t i = 0; i < sizeof assets / sizeof *assets; i++) {
        if (strcmp(r->tail, assets[i].name) != 0) continue;
        http_bytes(r, 200, assets[i].type, assets[i].data, (size_t)(assets[i].end - assets[i].data),
                   false, NULL, NULL);
        return;
    }
    api_error e = {0};
    api_fail(&e, 404, "not_found", NULL, "the page has no such part");
    http_error(r, &e);
}
