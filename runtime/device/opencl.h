/* The only place that includes OpenCL's headers: version 1.2 is what every vendor still ships. */
#ifndef EXPERTD_RUNTIME_OPENCL_H
#define EXPERTD_RUNTIME_OPENCL_H

#include <stdbool.h>

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

enum {
    OPENCL_PLATFORM_NOT_FOUND = -1001,    /* the ICD loader found no driver */
    OPENCL_NVIDIA_ILLEGAL_ACCESS = -9999, /* NVIDIA's driver, after which its context is dead */
};

/* "CL_OUT_OF_RESOURCES", ...; "CL_UNKNOWN_ERROR" for a number that no header names. */
const char *opencl_error_name(cl_int error);

/* True of the errors after which nothing on the device works: it went away, or the driver gave its context up. */
bool opencl_error_is_loss(cl_int error);

#endif
