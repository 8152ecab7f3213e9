// What permessage-deflate (RFC 7692) asks of a client that keeps no window: one inflater for all connections.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef WITH_ZLIB
#include <zlib.h>

// The message, with a spare byte behind it, in a buffer that the next call overwrites; or NULL if it is broken.
static char *inflated(uint8_t *payload, size_t size, size_t *length) {
    static z_stream inflater;
    static char *text;
    static size_t capacity;
    uint8_t end[] = {0, 0, 0xff, 0xff}, *in[] = {payload, end};
    size_t sizes[] = {size, sizeof end};
    if (!capacity && inflateInit2(&inflater, -15) != Z_OK) return NULL;
    if (!capacity) text = malloc((capacity = 1 << 18) + 1);
    inflateReset(&inflater);
    for (int i = 0; i < 2; i++) {
        inflater.next_in = in[i], inflater.avail_in = sizes[i];
        do {
            if (inflater.total_out == capacity) text = realloc(text, (capacity *= 2) + 1);
            inflater.next_out = (uint8_t *)text + inflater.total_out, inflater.avail_out = capacity - inflater.total_out;
            int result = inflate(&inflater, Z_SYNC_FLUSH);
            if (result != Z_OK && result != Z_BUF_ERROR) return NULL;
        } while (inflater.avail_in || !inflater.avail_out);
    }
    *length = inflater.total_out;
    return text;
}
#else
static char *inflated(uint8_t *payload, size_t size, size_t *length) {
    (void)payload, (void)size, (void)length;
    return NULL;
}
#endif
