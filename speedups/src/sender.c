/* `Sender`: the usual send of a message, in one call.

   Its methods have the names and the arguments of those of `Producer`: `send_nowait`; `offer`, which is all of
   `send` and of a send with a receipt that need not wait; and `accept_item`, for an item of `send_many`. What
   is unusual (see accepting.c), errors too, is for the Python method, which is called with the same arguments.
   So each rule that says what happens then is written once, in Python. */

#include "sender.h"

static const char *const argument_names[] = {
    [VALUE] = "value",
    [KEY] = "key",
    [HEADERS] = "headers",
    [PARTITION] = "partition",
    [TIMESTAMP_MS] = "timestamp_ms",
};

/* ---- the methods ------------------------------------------------------------------------------------ */

static void
begin(Fields fields, PyObject *topic, PyObject *value, PyObject *key)
{
    for (int field = 0; field < ENTRY_FIELDS; field++) {
        fields[field] = Py_None;
    }
    fields[TOPIC] = topic;
    fields[VALUE] = value;
    fields[KEY] = key;
}

static int
argument_named(PyObject *name)
{
    for (int argument = VALUE; argument <= TIMESTAMP_MS; argument++) {
        if (PyUnicode_CompareWithASCIIString(name, argument_names[argument]) == 0) {
            return argument;
        }
    }
    return TOPIC;
}

static Outcome
read_arguments(Fields fields, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    if (count < 1 || count > 2) {
        return UNUSUAL;
    }
    begin(fields, args[0], count == 2 ? args[1] : Py_None, Py_None);
    Py_ssize_t named = names == NULL ? 0 : PyTuple_Size(names);
    for (Py_ssize_t i = 0; i < named; i++) {
        int argument = argument_named(PyTuple_GetItem(names, i));
        if (argument < count) { /* there is no such name, or it is given twice */
            return UNUSUAL;
        }
        fields[argument] = args[count + i];
    }
    return DONE;
}

static PyObject *
pack_tuple(PyObject *const *args, Py_ssize_t count)
{
    PyObject *packed = PyTuple_New(count);
    for (Py_ssize_t i = 0; packed != NULL && i < count; i++) {
        PyTuple_SetItem(packed, i, Py_NewRef(args[i]));
    }
    return packed;
}

static PyObject *
pack_dict(PyObject *names, PyObject *const *args)
{
    PyObject *packed = PyDict_New();
    Py_ssize_t count = names == NULL ? 0 : PyTuple_Size(names);
    for (Py_ssize_t i = 0; packed != NULL && i < count; i++) {
        if (PyDict_SetItem(packed, PyTuple_GetItem(names, i), args[i]) < 0) {
            Py_CLEAR(packed);
        }
    }
    return packed;
}

static PyObject *
call_python(PyObject *method, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *result = NULL;
    PyObject *positional = pack_tuple(args, count);
    PyObject *named = pack_dict(names, args + count);
    if (positional != NULL && named != NULL) {
        result = PyObject_Call(method, positional, named);
    }
    Py_XDECREF(positional);
    Py_XDECREF(named);
    return result;
}

static PyObject *
send_nowait(Sender *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Fields fields;
    PyObject *entry = NULL;
    Outcome outcome = read_arguments(fields, args, count, names);
    if (outcome == DONE) {
        outcome = accept_message_here(self, fields, &entry);
    }
    Py_XDECREF(entry);
    if (outcome == UNUSUAL) {
        return call_python(self->held[SEND_NOWAIT], args, count, names);
    }
    return outcome == DONE ? Py_NewRef(Py_None) : NULL;
}

/* Returns what the Python does: the entry, its topic, and that it is accepted. */
static PyObject *
offer(Sender *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Fields fields;
    PyObject *entry = NULL;
    Outcome outcome = UNUSUAL;
    int arguments = TIMESTAMP_MS + 1; /* and perhaps a ticket */
    if (names == NULL && (count == arguments || count == arguments + 1)) {
        begin(fields, args[TOPIC], args[VALUE], args[KEY]);
        fields[HEADERS] = args[HEADERS];
        fields[PARTITION] = args[PARTITION];
        fields[TIMESTAMP_MS] = args[TIMESTAMP_MS];
        fields[TICKET] = count == arguments ? Py_None : args[arguments];
        outcome = accept_message_here(self, fields, &entry);
    }
    if (outcome == UNUSUAL) {
        return call_python(self->held[OFFER], args, count, names);
    }
    if (outcome == FAILED) {
        return NULL;
    }
    PyObject *topic = PyDict_GetItemWithError(self->held[THE_TOPICS], args[TOPIC]);
    return Py_BuildValue("(NNO)", entry, Py_NewRef(topic == NULL ? Py_None : topic), Py_True);
}

static PyObject *
accept_item(Sender *self, PyObject *const *args, Py_ssize_t count)
{
    PyObject *entry = NULL;
    Outcome outcome = UNUSUAL;
    if (count == 2) {
        Fields fields;
        PyObject *item = args[1];
        if (PyTuple_CheckExact(item) && PyTuple_Size(item) == 2) {
            begin(fields, args[0], PyTuple_GetItem(item, 1), PyTuple_GetItem(item, 0));
        }
        else {
            begin(fields, args[0], item, Py_None);
        }
        outcome = accept_message(self, fields, &entry);
    }
    Py_XDECREF(entry);
    if (outcome == UNUSUAL) {
        return call_python(self->held[ACCEPT_ITEM], args, count, NULL);
    }
    return outcome == DONE ? Py_NewRef(Py_None) : NULL;
}

/* ---- the object itself ------------------------------------------------------------------------------ */

/* There is no `clear`: as a tuple, a sender never changes. The garbage collector ends a cycle elsewhere. */

static int
traverse(Sender *self, visitproc visit, void *arg)
{
    for (int i = 0; i < HELD; i++) {
        Py_VISIT(self->held[i]);
    }
    Py_VISIT(Py_TYPE(self));
    return 0;
}

static void
release(Sender *self)
{
    PyObject_GC_UnTrack(self);
    for (int i = 0; i < HELD; i++) {
        Py_XDECREF(self->held[i]);
    }
    free_instance((PyObject *)self);
}

static int
read_parts(PyObject *args, PyObject *keywords, State *state, PyObject **parts)
{
    static char *names[] = {
        "room", "intake", "ledger", "topics", "queue", "clock", "read_wall_clock",
        "token", "current_token", "send_nowait", "offer", "accept_item", NULL};
    return PyArg_ParseTupleAndKeywords(
        args, keywords, "$O!O!O!O!OOOOOOOO:Sender", names,
        state->types[ROOM_COUNTERS], &parts[THE_ROOM],
        state->types[INTAKE_COUNTERS], &parts[THE_INTAKE],
        state->types[LEDGER_COUNTERS], &parts[THE_LEDGER],
        &PyDict_Type, &parts[THE_TOPICS],
        &parts[THE_QUEUE], &parts[THE_CLOCK], &parts[READ_WALL_CLOCK], &parts[THE_TOKEN], &parts[CURRENT_TOKEN],
        &parts[SEND_NOWAIT], &parts[OFFER], &parts[ACCEPT_ITEM]);
}

static PyObject *
new_sender(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    State *state = PyType_GetModuleState(type);
    PyObject *parts[APPEND];
    if (state == NULL || !read_parts(args, keywords, state, parts)) {
        return NULL;
    }
    Sender *self = (Sender *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    for (int i = 0; i < APPEND; i++) {
        self->held[i] = Py_NewRef(parts[i]);
    }
    self->held[APPEND] = PyObject_GetAttrString(parts[THE_QUEUE], "append");
    self->held[TOPIC_TYPE] = Py_NewRef((PyObject *)state->types[TOPIC_COUNTERS]);
    self->held[NO_HEADERS] = PyTuple_New(0);
    self->held[ONE] = PyLong_FromLong(1);
    if (self->held[APPEND] == NULL || self->held[NO_HEADERS] == NULL || self->held[ONE] == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static PyMethodDef methods[] = {
    {"send_nowait", (PyCFunction)(void (*)(void))send_nowait, METH_FASTCALL | METH_KEYWORDS,
     "send_nowait($self, topic, value=None, *, key=None, headers=None, partition=None, timestamp_ms=None)\n--\n\n"
     "Accept a message for delivery, or raise; never blocks, never a checkpoint. See `Producer.send_nowait`."},
    {"offer", (PyCFunction)(void (*)(void))offer, METH_FASTCALL | METH_KEYWORDS,
     "offer($self, topic, value, key, headers, partition, timestamp_ms, ticket=None, *, wake=True)\n--\n\n"
     "Queue a message of `Producer.send`; its entry, its topic, and whether there was room."},
    {"accept_item", (PyCFunction)(void (*)(void))accept_item, METH_FASTCALL,
     "accept_item($self, topic, item, /)\n--\n\nQueue an item of `Producer.send_many`; None if there was room."},
    {NULL, NULL, 0, NULL},
};

PyType_Spec sender_spec = {
    .name = "trio_kprod_speedups._compiled.Sender",
    .basicsize = sizeof(Sender),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = (PyType_Slot[]){
        {Py_tp_new, new_sender},
        {Py_tp_traverse, traverse},
        {Py_tp_dealloc, release},
        {Py_tp_methods, methods},
        {0, NULL},
    },
};
