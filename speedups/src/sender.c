/* `Sender`: the usual send of a message, in one call.

   `offer` is what `send` awaits nothing for, `accept_item` the same for `send_many`.

   Usual means: every argument is of just the type that it should be; the topic is known and not limited; there
   is room, nobody waits for some, and nothing has to be woken. Everything else, errors too, is for the Python
   method of the same name, which is called with the same arguments. So each rule that says what happens then
   is written once, in Python.

   A message is accepted as a whole or not at all. What may run Python code comes first: the clock is read, and
   the entry is made, for which the garbage collector may run. From then on there is none, up to the last change
   of a counter: neither Ctrl-C nor another thread nor a finalizer that sends can come between. */

#include "speedups.h"

#include <stdint.h>

/* The most that a record and a header take besides their own bytes, see trio_kprod/_messages.py. */
#define RECORD_OVERHEAD 36
#define HEADER_OVERHEAD 10

/* A size that only Python can find out, or an error in its place. */
#define UNKNOWN (-1)

/* What a sender holds: its arguments, then what it makes of them. */
enum {
    THE_ROOM,
    THE_INTAKE,
    THE_LEDGER,
    THE_TOPICS,
    THE_QUEUE,
    THE_CLOCK,
    THE_TOKEN,
    CURRENT_TOKEN,
    SEND_NOWAIT,
    OFFER,
    ACCEPT_ITEM,
    APPEND,
    TOPIC_TYPE,
    NO_HEADERS,
    ONE,
    HELD
};

typedef struct {
    PyObject_HEAD
    PyObject *held[HELD];
} Sender;

/* The fields of an entry in the making, all borrowed. The first are the arguments of the send, in this order. */
typedef PyObject *Fields[ENTRY_FIELDS];

static const char *const argument_names[] = {
    [VALUE] = "value",
    [KEY] = "key",
    [HEADERS] = "headers",
    [PARTITION] = "partition",
    [TIMESTAMP_MS] = "timestamp_ms",
};

/* What became of an attempt. */
typedef enum { FAILED = -1, UNUSUAL, DONE } Outcome;

static Outcome
failed_or_unusual(void)
{
    return PyErr_Occurred() ? FAILED : UNUSUAL;
}

/* ---- numbers ---------------------------------------------------------------------------------------- */

/* What is no number leaves an error behind. A counter that was never set is -1, which is not usual. */

static Py_ssize_t
number(PyObject *counter)
{
    return counter == NULL ? -1 : PyLong_AsSsize_t(counter);
}

static double
seconds(PyObject *counter)
{
    return counter == NULL ? -1.0 : PyFloat_AsDouble(counter);
}

static PyObject *
sum(PyObject *counter, PyObject *more)
{
    return counter == NULL ? NULL : PyNumber_Add(counter, more);
}

static PyObject **
fields_of(Sender *self, int counters)
{
    return ((Counters *)self->held[counters])->fields;
}

/* ---- accepting: from here on no Python code runs ---------------------------------------------------- */

static int
is_usual(Sender *self, const Counters *topic, Py_ssize_t size, double now)
{
    PyObject *const *room = fields_of(self, THE_ROOM), *const *intake = fields_of(self, THE_INTAKE);
    Py_ssize_t queued = PyObject_Size(self->held[THE_QUEUE]) + 1;
    return topic->fields[TOPIC_LIMITED] == Py_False && number(room[ROOM_TASKS_WAITING]) == 0 &&
           size <= number(topic->fields[TOPIC_MAX_MESSAGE_SIZE]) &&
           number(room[ROOM_UNSETTLED_BYTES]) <= number(room[ROOM_MAX_BYTES]) - size &&
           queued > 0 && queued <= number(room[ROOM_BOUND]) && (double)queued < seconds(room[ROOM_WAKE_AT]) &&
           now < seconds(intake[INTAKE_MILLISECOND_ENDS]) && !PyErr_Occurred();
}

static Outcome
fill(Sender *self, PyObject *entry, Fields fields, const Counters *topic, PyObject *size)
{
    fields[TOPIC] = topic->fields[TOPIC_NAME];
    if (fields[TIMESTAMP_MS] == Py_None) {
        fields[TIMESTAMP_MS] = fields_of(self, THE_INTAKE)[INTAKE_MILLISECOND];
    }
    fields[SIZE] = size;
    fields[RUN] = fields_of(self, THE_LEDGER)[LEDGER_RUN];
    Outcome outcome = DONE;
    for (int field = 0; field < ENTRY_FIELDS; field++) {
        if (fields[field] == NULL) {
            outcome = UNUSUAL;
        }
        Py_XINCREF(fields[field]);
        PyTuple_SetItem(entry, field, fields[field]);
    }
    return outcome;
}

static Outcome
append(Sender *self, PyObject *entry)
{
    PyObject *none = PyObject_CallFunctionObjArgs(self->held[APPEND], entry, NULL);
    Py_XDECREF(none);
    return none == NULL ? FAILED : DONE;
}

static void
replace(PyObject **field, PyObject **value)
{
    PyObject *former = *field;
    *field = *value;
    *value = former;
}

/* Everything that can fail comes before the message is in the queue; the counters follow it for sure. */
static Outcome
append_and_count(Sender *self, Counters *topic, PyObject *entry, PyObject *size)
{
    PyObject **room_bytes = &fields_of(self, THE_ROOM)[ROOM_UNSETTLED_BYTES];
    PyObject **topic_bytes = &topic->fields[TOPIC_UNSETTLED_BYTES], **count = &topic->fields[TOPIC_UNSETTLED];
    PyObject *in_room = sum(*room_bytes, size);
    PyObject *in_topic = sum(*topic_bytes, size);
    PyObject *counted = sum(*count, self->held[ONE]);
    Outcome outcome = in_room && in_topic && counted ? append(self, entry) : failed_or_unusual();
    if (outcome == DONE) {
        replace(room_bytes, &in_room);
        replace(topic_bytes, &in_topic);
        replace(count, &counted);
    }
    Py_XDECREF(in_room);
    Py_XDECREF(in_topic);
    Py_XDECREF(counted);
    return outcome;
}

static Outcome
accept_for(Sender *self, Counters *topic, PyObject *entry, Fields fields, Py_ssize_t size)
{
    double now = seconds(fields[ACCEPTED_AT]);
    if (!is_usual(self, topic, size, now)) {
        return failed_or_unusual();
    }
    PyObject *counted = PyLong_FromSsize_t(size);
    Outcome outcome = counted == NULL ? FAILED : fill(self, entry, fields, topic, counted);
    if (outcome == DONE) {
        outcome = append_and_count(self, topic, entry, counted);
    }
    Py_XDECREF(counted);
    return outcome;
}

static Outcome
accept_entry(Sender *self, PyObject *entry, Fields fields, Py_ssize_t size)
{
    PyObject *topic = PyDict_GetItemWithError(self->held[THE_TOPICS], fields[TOPIC]);
    if (topic == NULL || !PyObject_TypeCheck(topic, (PyTypeObject *)self->held[TOPIC_TYPE])) {
        return failed_or_unusual();
    }
    Py_INCREF(topic);
    Outcome outcome = accept_for(self, (Counters *)topic, entry, fields, size);
    Py_DECREF(topic);
    return outcome;
}

/* ---- what comes before: the arguments --------------------------------------------------------------- */

static Py_ssize_t
size_of(PyObject *data)
{
    if (data == Py_None) {
        return 0;
    }
    return PyBytes_CheckExact(data) ? PyBytes_Size(data) : UNKNOWN;
}

static Py_ssize_t
size_of_header(PyObject *pair)
{
    if (!PyTuple_CheckExact(pair) || PyTuple_Size(pair) != 2) {
        return UNKNOWN;
    }
    PyObject *name = PyTuple_GetItem(pair, 0);
    Py_ssize_t name_size, value_size = size_of(PyTuple_GetItem(pair, 1));
    if (value_size == UNKNOWN || !PyUnicode_CheckExact(name)) {
        return UNKNOWN;
    }
    if (PyUnicode_AsUTF8AndSize(name, &name_size) == NULL) {
        PyErr_Clear(); /* a surrogate; Python finds it as well, and has words for it */
        return UNKNOWN;
    }
    return HEADER_OVERHEAD + name_size + value_size;
}

static Py_ssize_t
size_of_headers(PyObject *headers)
{
    Py_ssize_t size = 0, count = PyTuple_Size(headers);
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t more = size_of_header(PyTuple_GetItem(headers, i));
        if (more == UNKNOWN) {
            return UNKNOWN;
        }
        size += more;
    }
    return size;
}

static int
is_none_or_up_to(long long most, PyObject *given)
{
    if (given == Py_None) {
        return 1;
    }
    if (!PyLong_CheckExact(given)) {
        return 0;
    }
    long long number = PyLong_AsLongLong(given);
    if (number == -1) {
        PyErr_Clear(); /* it may be one that is too large */
    }
    return 0 <= number && number <= most;
}

/* The size of the message as every bound counts it. */
static Py_ssize_t
measure(Fields fields)
{
    Py_ssize_t key = size_of(fields[KEY]), value = size_of(fields[VALUE]);
    Py_ssize_t headers = size_of_headers(fields[HEADERS]);
    int is_empty = fields[KEY] == Py_None && fields[VALUE] == Py_None;
    if (key == UNKNOWN || value == UNKNOWN || headers == UNKNOWN || is_empty) {
        return UNKNOWN;
    }
    if (!PyUnicode_CheckExact(fields[TOPIC]) || !is_none_or_up_to(INT32_MAX, fields[PARTITION]) ||
        !is_none_or_up_to(INT64_MAX, fields[TIMESTAMP_MS])) {
        return UNKNOWN;
    }
    return RECORD_OVERHEAD + key + value + headers;
}

/* Once it is done, `accepted` is the entry. */
static Outcome
accept_with_headers(Sender *self, Fields fields, PyObject **accepted)
{
    Py_ssize_t size = measure(fields);
    if (size == UNKNOWN) {
        return UNUSUAL;
    }
    Outcome outcome = FAILED;
    PyObject *now = PyObject_CallNoArgs(self->held[THE_CLOCK]);
    PyObject *entry = now == NULL ? NULL : PyTuple_New(ENTRY_FIELDS);
    if (entry != NULL) {
        fields[ACCEPTED_AT] = now;
        outcome = accept_entry(self, entry, fields, size);
    }
    if (outcome == DONE) {
        *accepted = Py_NewRef(entry);
    }
    Py_XDECREF(entry);
    Py_XDECREF(now);
    return outcome;
}

/* The headers become a tuple first: a list could change while the clock is read. */
static Outcome
accept(Sender *self, Fields fields, PyObject **accepted)
{
    PyObject *given = fields[HEADERS] == Py_None ? self->held[NO_HEADERS] : fields[HEADERS];
    if (!PyTuple_CheckExact(given) && !PyList_CheckExact(given)) {
        return UNUSUAL;
    }
    PyObject *headers = PySequence_Tuple(given);
    if (headers == NULL) {
        return FAILED;
    }
    fields[HEADERS] = headers;
    Outcome outcome = accept_with_headers(self, fields, accepted);
    Py_DECREF(headers);
    return outcome;
}

/* Whether this is the trio run in which the producer was opened. */
static Outcome
check_place(Sender *self)
{
    PyObject *token = PyObject_CallNoArgs(self->held[CURRENT_TOKEN]);
    if (token == NULL && PyErr_ExceptionMatches(PyExc_RuntimeError)) {
        PyErr_Clear(); /* no trio run at all; Python finds that out as well, and has words for it */
        return UNUSUAL;
    }
    Py_XDECREF(token);
    if (token == NULL) {
        return FAILED;
    }
    return token == self->held[THE_TOKEN] ? DONE : UNUSUAL;
}

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

static Outcome
accept_in_place(Sender *self, Fields fields, PyObject **accepted)
{
    Outcome outcome = check_place(self);
    return outcome == DONE ? accept(self, fields, accepted) : outcome;
}

static PyObject *
send_nowait(Sender *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Fields fields;
    PyObject *entry = NULL;
    Outcome outcome = read_arguments(fields, args, count, names);
    if (outcome == DONE) {
        outcome = accept_in_place(self, fields, &entry);
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
        outcome = accept_in_place(self, fields, &entry);
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
        outcome = accept(self, fields, &entry);
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
    static char *names[] = {"room",          "intake",      "ledger", "topics",      "queue", "clock", "token",
                            "current_token", "send_nowait", "offer",  "accept_item", NULL};
    return PyArg_ParseTupleAndKeywords(
        args, keywords, "$O!O!O!O!OOOOOOO:Sender", names,
        state->types[ROOM_COUNTERS], &parts[THE_ROOM],
        state->types[INTAKE_COUNTERS], &parts[THE_INTAKE],
        state->types[LEDGER_COUNTERS], &parts[THE_LEDGER],
        &PyDict_Type, &parts[THE_TOPICS],
        &parts[THE_QUEUE], &parts[THE_CLOCK], &parts[THE_TOKEN], &parts[CURRENT_TOKEN],
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
