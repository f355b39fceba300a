/* Which device a run works on. */
#include <string.h>

#include "kwm/log.h"
#include "language_run.h"
#include "run.h"

void kwm_run_say_device(const struct kwm_run *run) {
  const kwm_device *const device = run->device;
  if (device == NULL) return;
  const bool kalman = run->learner.ops == &kwm_learn_kalman;
  const bool rooms = kalman && kwm_learner_filter(&run->learner)->over.rooms != NULL;
  const char *const sums = run->layout.replicas == 1  ? ""
                           : rooms                    ? "; sums over replicas in each other's memory"
                           : run->layout.devices_talk ? "; sums over replicas between devices"
                                                      : "; sums over replicas through the host";
  const char *const ways = kwm_pipe_ways(run->pipe);
  kwm_log(KWM_LOG_INFO, "backend %s: %s%s%s%s%s", kwm_device_name(device), device->words, *ways ? "; " : "", ways, sums,
          run->learner.device == NULL ? "; the learner works on the host" : "");
}

kwm_status kwm_run_open_device(struct kwm_run *run) {
  const struct kwm_config *const config = &run->config;
  if (strcmp(config->backend, "cpu") == 0) return KWM_OK;
  const struct kwm_device_spec spec = {
      .local_rank = kwm_par_local_rank(), .tf32 = strcmp(config->precision, "float") != 0, .graphs = config->graphs};
  const kwm_status status = kwm_agree(run->layout.world, kwm_device_open(&run->device, config->backend, &spec));
  if (status != KWM_OK) {
    kwm_device_close(run->device);
    run->device = NULL;
    kwm_log(KWM_LOG_WARNING, "%s: going on with backend cpu", kwm_error_message());
    return KWM_OK;
  }
  const bool all = kwm_language_is(config) ? run->layout.owners > 1 : kwm_run_couples_samples(config);
  return kwm_par_join_devices(&run->layout, run->device, all);
}
