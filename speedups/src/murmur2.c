/* The hash by which a key belongs to a partition, as in Java. */

#include "speedups.h"

#include <stdint.h>

#define SEED 0x9747b28cU
#define MIXER 0x5bd1e995U

const char murmur2_doc[] = "murmur2($module, key, /)\n--\n\nJava's ``Utils.murmur2``, but unsigned.";

/* Up to four bytes, the first of them lowest, whatever the machine's own order is. */
static uint32_t
word_of(const unsigned char *bytes, Py_ssize_t count)
{
    uint32_t word = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        word |= (uint32_t)bytes[i] << (8 * i);
    }
    return word;
}

static uint32_t
hash(const unsigned char *bytes, Py_ssize_t size)
{
    uint32_t digest = SEED ^ (uint32_t)size;
    for (; size >= 4; bytes += 4, size -= 4) {
        uint32_t word = word_of(bytes, 4) * MIXER;
        digest = (digest * MIXER) ^ ((word ^ word >> 24) * MIXER);
    }
    if (size > 0) {
        digest = (digest ^ word_of(bytes, size)) * MIXER;
    }
    digest = (digest ^ digest >> 13) * MIXER;
    return digest ^ digest >> 15;
}

PyObject *
murmur2(PyObject *module, PyObject *key)
{
    char *bytes;
    Py_ssize_t size;
    (void)module;
    if (PyBytes_AsStringAndSize(key, &bytes, &size) < 0) {
        return NULL;
    }
    return PyLong_FromUnsignedLong(hash((const unsigned char *)bytes, size));
}
