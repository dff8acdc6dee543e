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

/* The fields that Python and C share: the classes of trio_kprod/_counters.py, which says what they mean.

   Those that are objects are text and whole numbers only, so the garbage collector need not know of them. */

typedef struct {
    PyObject_HEAD
    Py_ssize_t bound;
    Py_ssize_t max_bytes;
    Py_ssize_t tasks_waiting;
    Py_ssize_t unsettled_bytes;
    double wake_at;
} RoomCounters;

typedef struct {
    PyObject_HEAD
    PyObject *name;
    Py_ssize_t max_message_size;
    Py_ssize_t unsettled;
    Py_ssize_t unsettled_bytes;
    char limited;
} TopicCounters;

typedef struct {
    PyObject_HEAD
    PyObject *millisecond;
    double millisecond_ends;
} IntakeCounters;

typedef struct {
    PyObject_HEAD
    PyObject *run;
} LedgerCounters;

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
