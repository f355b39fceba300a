/* Devices in modules of their own. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "device_open.h"

typedef kwm_status (*opener)(kwm_device **device, const struct kwm_device_spec *spec);

kwm_status device_open_module(kwm_device **device, const char *name, const struct kwm_device_spec *spec) {
  char file[64], entry[64];
  opener open = NULL;
  snprintf(file, sizeof file, "libkwm_%s.so", name);
  snprintf(entry, sizeof entry, "device_open_%s", name);
  void *const module = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  KWM_CHECK(module != NULL, KWM_ERR_SYSTEM, "backend %s: wanted %s (a build with it), found: %s", name, file,
            dlerror());
  void *const symbol = dlsym(module, entry);
  KWM_CHECK(symbol != NULL, KWM_ERR_SYSTEM, "backend %s: wanted %s in %s, found: %s", name, entry, file, dlerror());
  memcpy(&open, &symbol, sizeof open); /* C has no cast from an object to a function */
  return open(device, spec);
}
