/* image_webp.c: WebP through libwebp's animation decoder, as Pillow does: it puts a frame
 * on its canvas, also where that frame is smaller, and a still picture is an animation of one.
 */
#include "loader/image_decode.h"

#include <stdlib.h>

#include <webp/decode.h>
#include <webp/demux.h>

/* EXIF, profile and the number of frames, from the container. */
static void read_container(vl_decode *d, const WebPDemuxer *demux, bool *alpha) {
    WebPChunkIterator it;
    if (WebPDemuxGetChunk(demux, "EXIF", 1, &it)) {
        vl_decode_exif(d, it.chunk.bytes, it.chunk.size);
        WebPDemuxReleaseChunkIterator(&it);
    }
    if (WebPDemuxGetChunk(demux, "XMP ", 1, &it)) {
        vl_decode_xmp(d, it.chunk.bytes, it.chunk.size);
        WebPDemuxReleaseChunkIterator(&it);
    }
    uint32_t flags = WebPDemuxGetI(demux, WEBP_FF_FORMAT_FLAGS);
    *alpha = flags & ALPHA_FLAG;
    if (flags & ICCP_FLAG) vl_decode_warn(d, "icc_ignored");
    if (!d->frame && WebPDemuxGetI(demux, WEBP_FF_FRAME_COUNT) > 1)
        vl_decode_warn(d, "animated:first_frame_used");
}

static int one_frame(vl_decode *d, WebPAnimDecoder *decoder) {
    uint8_t *canvas;
    int milliseconds;
    bool alpha, got = true;
    size_t n = (size_t)d->width * (size_t)d->height;
    WebPAnimInfo info;
    if (!WebPAnimDecoderGetInfo(decoder, &info) || info.canvas_width != (uint32_t)d->width ||
        info.canvas_height != (uint32_t)d->height)
        return vl_decode_broken(d, "WebP");
    if (d->frame && (uint32_t)d->frame >= info.frame_count)
        return vl_fail(d->err, VL_E_INPUT, "%s: frame %d was asked for, and this WebP has %u (the first is 0)", d->name,
                       d->frame, info.frame_count);
    for (int i = 0; i <= d->frame && got; i++) got = WebPAnimDecoderGetNext(decoder, &canvas, &milliseconds);
    if (!got) return vl_decode_broken(d, "WebP");
    read_container(d, WebPAnimDecoderGetDemuxer(decoder), &alpha);
    d->channels = alpha ? 4 : 3;
    d->pixels = malloc(n * (size_t)d->channels);
    if (!d->pixels) return vl_decode_no_memory(d);
    if (alpha) {
        memcpy(d->pixels, canvas, 4 * n);
        return 0;
    }
    for (size_t i = 0; i < n; i++) memcpy(d->pixels + 3 * i, canvas + 4 * i, 3);
    return 0;
}

int vl_decode_webp(vl_decode *d) {
    WebPBitstreamFeatures features;
    WebPAnimDecoderOptions options;
    if (d->len < 12 || vl_get32(d->bytes + 4, false) > d->len - 8)
        return vl_decode_truncated(d, "WebP");
    if (WebPGetFeatures(d->bytes, d->len, &features) != VP8_STATUS_OK)
        return vl_decode_broken(d, "WebP");
    if (vl_decode_size(d, features.width, features.height) < 0) return -1;
    if (!WebPAnimDecoderOptionsInit(&options)) return vl_decode_broken(d, "WebP");
    options.color_mode = MODE_RGBA;
    WebPData data = {d->bytes, d->len};
    WebPAnimDecoder *decoder = WebPAnimDecoderNew(&data, &options);
    if (!decoder) return vl_decode_broken(d, "WebP");
    int rc = one_frame(d, decoder);
    WebPAnimDecoderDelete(decoder);
    return rc;
}
