/* The types whose fields Python and C share. To Python they look as the classes of trio_kprod/_counters.py. */

#include "speedups.h"

#include <stddef.h>
#include <structmember.h>

#define FIELD(name, place) {name, T_OBJECT_EX, offsetof(Counters, fields) + (place) * sizeof(PyObject *), 0, NULL}
#define END {NULL, 0, 0, 0, NULL}

static PyMemberDef room_members[] = {
    FIELD("bound", ROOM_BOUND),
    FIELD("max_bytes", ROOM_MAX_BYTES),
    FIELD("tasks_waiting", ROOM_TASKS_WAITING),
    FIELD("unsettled_bytes", ROOM_UNSETTLED_BYTES),
    FIELD("wake_at", ROOM_WAKE_AT),
    END,
};

static PyMemberDef topic_members[] = {
    FIELD("limited", TOPIC_LIMITED),
    FIELD("max_message_size", TOPIC_MAX_MESSAGE_SIZE),
    FIELD("name", TOPIC_NAME),
    FIELD("unsettled", TOPIC_UNSETTLED),
    FIELD("unsettled_bytes", TOPIC_UNSETTLED_BYTES),
    END,
};

static PyMemberDef intake_members[] = {
    FIELD("millisecond", INTAKE_MILLISECOND),
    FIELD("millisecond_ends", INTAKE_MILLISECOND_ENDS),
    END,
};

static PyMemberDef ledger_members[] = {
    FIELD("run", LEDGER_RUN),
    END,
};

void
free_instance(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static void
release(Counters *self)
{
    for (size_t i = 0; i < sizeof(self->fields) / sizeof(self->fields[0]); i++) {
        Py_XDECREF(self->fields[i]);
    }
    free_instance((PyObject *)self);
}

#define COUNTERS(type, members)                                                                               \
    {                                                                                                         \
        .name = "trio_kprod_speedups._compiled." type, .basicsize = sizeof(Counters),                         \
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,                                                    \
        .slots = (PyType_Slot[]){{Py_tp_members, members}, {Py_tp_dealloc, release}, {0, NULL}},              \
    }

PyType_Spec room_counters_spec = COUNTERS("RoomCounters", room_members);
PyType_Spec topic_counters_spec = COUNTERS("TopicCounters", topic_members);
PyType_Spec intake_counters_spec = COUNTERS("IntakeCounters", intake_members);
PyType_Spec ledger_counters_spec = COUNTERS("LedgerCounters", ledger_members);
