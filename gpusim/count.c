/* count.c: see count.h. */
#include "count.h"
#include "model.h"

/* A sector and which of its bytes were asked for. */
typedef struct { uint64_t at; uint32_t bytes; } Sector;

static void add_sector(Sector *out, int *n, uint64_t at, uint32_t bytes) {
    int k = *n - 1;
    while (k >= 0 && out[k].at > at) k--;
    if (k >= 0 && out[k].at == at) {
        out[k].bytes |= bytes;
        return;
    }
    for (int i = (*n)++; i > k + 1; i--) out[i] = out[i - 1];
    out[k + 1] = (Sector){at, bytes};
}

/* Sectors of a request, each once, ascending; addresses of neighbouring lanes usually rise. */
static int sectors_of(const uint64_t *addr, uint32_t mask, uint32_t bytes, Sector *out) {
    int n = 0;
    uint64_t gap = 0;
    for (int i = 0; i < LANES; i++) gap |= addr[i] ^ (addr[0] + (uint64_t)i * bytes);
    if (!gap && mask == ALL && !(addr[0] % 32) && !(LANES * bytes % 32)) {
        for (uint64_t s = addr[0] / 32; s < (addr[31] + bytes) / 32; s++)
            out[n++] = (Sector){s, ALL};
        return n;
    }
    for (uint32_t m = mask; m; m &= m - 1) {
        uint64_t from = addr[__builtin_ctz(m)], end = from + bytes;
        while (from < end) {
            uint64_t stop = from / 32 * 32 + 32 < end ? from / 32 * 32 + 32 : end;
            uint32_t n_bytes = (uint32_t)(stop - from);
            add_sector(out, &n, from / 32,
                       (n_bytes == 32 ? ALL : (1u << n_bytes) - 1) << from % 32);
            from = stop;
        }
    }
    return n;
}

void count_global(OpCount *n, const uint64_t *addr, uint32_t mask, uint32_t bytes, bool write,
                  bool weights) {
    Sector s[LANES * 2];
    int k = sectors_of(addr, mask, bytes, s);
    n->sectors += (uint64_t)k;
    n->bytes += bytes * (uint64_t)__builtin_popcount(mask);
    uint64_t used = 0;
    for (int i = 0; i < k; i++) used += (uint64_t)__builtin_popcount(s[i].bytes);
    n->used += used;
    n->weight_sectors += weights ? (uint64_t)k : 0;
    n->weight_used += weights ? used : 0;
    for (int i = 0; settings.l2 && i < k;) {
        uint64_t line = s[i].at / 4;
        uint32_t m = 0;
        for (; i < k && s[i].at / 4 == line; i++) m |= 1u << s[i].at % 4;
        n->missed += (uint64_t)model_l2(line, m, write);
    }
}

/* Most distinct words that one of the 32 banks holds. */
static uint32_t worst_bank(const uint32_t *word, int n) {
    uint32_t used[LANES] = {0}, list[LANES][LANES], worst = 0;
    for (int i = 0; i < n; i++) {
        uint32_t b = word[i] % LANES, k = 0;
        while (k < used[b] && list[b][k] != word[i]) k++;
        if (k < used[b] || k == LANES) continue;
        list[b][used[b]++] = word[i];
        if (used[b] > worst) worst = used[b];
    }
    return worst;
}

/* Wavefronts: 32 lanes of 4 bytes, 16 of 8 or 8 of 16 go together. */
void count_shared(OpCount *n, const uint64_t *addr, uint32_t mask, uint32_t bytes) {
    uint32_t per = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8, words = bytes <= 4 ? 1 : bytes / 4;
    for (uint32_t first = 0; first < LANES; first += per) {
        uint32_t word[LANES];
        int k = 0;
        for (uint32_t i = first; i < first + per; i++)
            for (uint32_t j = 0; j < words && mask >> i & 1; j++)
                word[k++] = (uint32_t)(addr[i] / 4 + j);
        if (!k) continue;
        n->wavefronts += worst_bank(word, k);
        n->ideal++;
    }
    n->bytes += bytes * (uint64_t)__builtin_popcount(mask);
}

uint32_t count_rows(const uint64_t *addr, int rows, uint32_t bytes) {
    uint32_t word[LANES];
    int k = 0;
    for (int i = 0; i < rows; i++)
        for (uint32_t j = 0; j < bytes / 4; j++) word[k++] = (uint32_t)(addr[i] / 4 + j);
    return worst_bank(word, k);
}
