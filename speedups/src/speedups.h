/* What the files of this module share. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* The fields of an entry, which is a message on its way: a plain tuple, see trio_kprod/_messages.py. */
enum {
    TOPIC,
    VALUE,
    KEY,
    HEADERS,
    PARTITION,
    TIMESTAMP_MS,
    SIZE,
    ACCEPTED_AT,
    TICKET,
    RUN,
    ENTRY_FIELDS
};

PyObject *encode_records(PyObject *module, PyObject *args);
extern const char encode_records_doc[];
