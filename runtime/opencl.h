/* The only place that includes OpenCL's headers: version 1.2 is what every vendor still ships. */
#ifndef EXPERTD_RUNTIME_OPENCL_H
#define EXPERTD_RUNTIME_OPENCL_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

/* "CL_OUT_OF_RESOURCES", ...; "CL_UNKNOWN_ERROR" for a number that no header names. */
const char *opencl_error_name(cl_int error);

#endif
