/* trio_kprod_speedups._compiled: what the module has. */

#include "speedups.h"

static PyMethodDef methods[] = {
    {"encode_records", encode_records, METH_VARARGS, encode_records_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "trio_kprod_speedups._compiled",
    .m_doc = "Compiled parts of trio_kprod.",
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__compiled(void)
{
    return PyModuleDef_Init(&definition);
}
