/* The types whose fields Python and C share. To Python they look as the classes of trio_kprod/_counters.py. */

#include "speedups.h"

#include <stddef.h>
#include <structmember.h>

#define FIELD(type, field, kind) {#field, kind, offsetof(type, field), 0, NULL}
#define END {NULL, 0, 0, 0, NULL}

/* ---- when one of them goes -------------------------------------------------------------------------- */

void
free_instance(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static void
free_topic(PyObject *self)
{
    Py_CLEAR(((TopicCounters *)self)->name);
    free_instance(self);
}

static void
free_intake(PyObject *self)
{
    Py_CLEAR(((IntakeCounters *)self)->millisecond);
    free_instance(self);
}

static void
free_ledger(PyObject *self)
{
    Py_CLEAR(((LedgerCounters *)self)->run);
    free_instance(self);
}

/* ---- their fields ----------------------------------------------------------------------------------- */

static PyMemberDef room_members[] = {
    FIELD(RoomCounters, bound, T_PYSSIZET),
    FIELD(RoomCounters, max_bytes, T_PYSSIZET),
    FIELD(RoomCounters, tasks_waiting, T_PYSSIZET),
    FIELD(RoomCounters, unsettled_bytes, T_PYSSIZET),
    FIELD(RoomCounters, wake_at, T_DOUBLE),
    END,
};

static PyMemberDef topic_members[] = {
    FIELD(TopicCounters, limited, T_BOOL),
    FIELD(TopicCounters, max_message_size, T_PYSSIZET),
    FIELD(TopicCounters, name, T_OBJECT_EX),
    FIELD(TopicCounters, unsettled, T_PYSSIZET),
    FIELD(TopicCounters, unsettled_bytes, T_PYSSIZET),
    END,
};

static PyMemberDef intake_members[] = {
    FIELD(IntakeCounters, millisecond, T_OBJECT_EX),
    FIELD(IntakeCounters, millisecond_ends, T_DOUBLE),
    END,
};

static PyMemberDef ledger_members[] = {
    FIELD(LedgerCounters, run, T_OBJECT_EX),
    END,
};

/* ---- the types -------------------------------------------------------------------------------------- */

#define COUNTERS(type, members, release)                                                                      \
    {                                                                                                         \
        .name = "trio_kprod_speedups._compiled." #type, .basicsize = sizeof(type),                            \
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,                                                    \
        .slots = (PyType_Slot[]){{Py_tp_members, members}, {Py_tp_dealloc, release}, {0, NULL}},              \
    }

PyType_Spec room_counters_spec = COUNTERS(RoomCounters, room_members, free_instance);
PyType_Spec topic_counters_spec = COUNTERS(TopicCounters, topic_members, free_topic);
PyType_Spec intake_counters_spec = COUNTERS(IntakeCounters, intake_members, free_intake);
PyType_Spec ledger_counters_spec = COUNTERS(LedgerCounters, ledger_members, free_ledger);
