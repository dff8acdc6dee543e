/* trio_kprod_speedups._compiled: what the module has. */

#include "speedups.h"

static PyType_Spec *const specs[TYPES] = {
    [ROOM_COUNTERS] = &room_counters_spec,
    [TOPIC_COUNTERS] = &topic_counters_spec,
    [INTAKE_COUNTERS] = &intake_counters_spec,
    [LEDGER_COUNTERS] = &ledger_counters_spec,
    [SENDER] = &sender_spec,
};

static int
add_types(PyObject *module)
{
    State *state = PyModule_GetState(module);
    for (int i = 0; i < TYPES; i++) {
        state->types[i] = (PyTypeObject *)PyType_FromModuleAndSpec(module, specs[i], NULL);
        if (state->types[i] == NULL || PyModule_AddType(module, state->types[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    for (int i = 0; i < TYPES; i++) {
        Py_VISIT(state->types[i]);
    }
    return 0;
}

static int
clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    for (int i = 0; i < TYPES; i++) {
        Py_CLEAR(state->types[i]);
    }
    return 0;
}

static void
release(void *module)
{
    clear(module);
}

static PyMethodDef methods[] = {
    {"encode_records", encode_records, METH_VARARGS, encode_records_doc},
    {"murmur2", murmur2, METH_O, murmur2_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, add_types},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "trio_kprod_speedups._compiled",
    .m_doc = "Compiled parts of trio_kprod.",
    .m_size = sizeof(State),
    .m_methods = methods,
    .m_slots = slots,
    .m_traverse = traverse,
    .m_clear = clear,
    .m_free = release,
};

PyMODINIT_FUNC
PyInit__compiled(void)
{
    return PyModuleDef_Init(&definition);
}
