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

/* What Python and C share: instances of the classes of trio_kprod/_counters.py, which says what the fields mean.

   The fields are Python's own objects, as those of `__slots__` are: so Python is as quick with them as ever. All
   of them are numbers and text, of which the garbage collector need not know. */
enum { ROOM_BOUND, ROOM_MAX_BYTES, ROOM_TASKS_WAITING, ROOM_UNSETTLED_BYTES, ROOM_WAKE_AT };
enum { TOPIC_LIMITED, TOPIC_MAX_MESSAGE_SIZE, TOPIC_NAME, TOPIC_UNSETTLED, TOPIC_UNSETTLED_BYTES };
enum { INTAKE_MILLISECOND, INTAKE_MILLISECOND_ENDS };
enum { LEDGER_RUN };

typedef struct {
    PyObject_HEAD
    PyObject *fields[5]; /* as many as the largest has */
} Counters;

/* The types of this module, in the order in which they are made. */
enum { ROOM_COUNTERS, TOPIC_COUNTERS, INTAKE_COUNTERS, LEDGER_COUNTERS, SENDER, TYPES };

typedef struct {
    PyTypeObject *types[TYPES];
} State;

/* The end of a dealloc: frees the instance, and gives its type back. */
void free_instance(PyObject *self);

extern PyType_Spec room_counters_spec;
extern PyType_Spec topic_counters_spec;
extern PyType_Spec intake_counters_spec;
extern PyType_Spec ledger_counters_spec;
extern PyType_Spec sender_spec;

PyObject *encode_records(PyObject *module, PyObject *args);
extern const char encode_records_doc[];

PyObject *murmur2(PyObject *module, PyObject *key);
extern const char murmur2_doc[];
