/* Private to backend: how each kind of device is opened. See kwm_device_open. */
#pragma once

#include "kwm/device.h"

kwm_status device_open_shadow(kwm_device **device, const struct kwm_device_spec *spec);

/* A device that is no part of the program: the module libkwm_NAME.so, in the program's folder or where the system looks
   for libraries, and in it device_open_NAME. It stays loaded. */
kwm_status device_open_module(kwm_device **device, const char *name, const struct kwm_device_spec *spec);
kwm_status device_open_cuda(kwm_device **device, const struct kwm_device_spec *spec);
