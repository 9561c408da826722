/* Double of nvidia-smi as a CDI spec mounts it into containers, whose images may have no shell: it
 * lists the GPUs that the container was given (environment variables, see nvidia-ctk).
 *
 * Build: gcc -static -s -o nvidia-smi container-smi.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int count, char **arguments) {
  if (count < 2 || strcmp(arguments[1], "--query-gpu=uuid,driver_version")) {
    fprintf(stderr, "the double of nvidia-smi does not know this in a container\n");
    return 2;
  }
  FILE *gpus = fopen("/etc/llmhost-double/gpus", "r");
  const char *driver = getenv("LLMHOST_DOUBLE_DRIVER");
  if (!gpus || !driver) {
    printf("Failed to initialize NVML: Unknown Error\n");
    return 255;
  }
  char index[16], uuid[64], variable[64];
  while (fscanf(gpus, "%15s %63s %*[^\n]", index, uuid) == 2) {
    snprintf(variable, sizeof variable, "LLMHOST_DOUBLE_GPU_%s", index);
    if (getenv(variable)) printf("%s, %s\n", uuid, driver);
  }
  return 0;
}
