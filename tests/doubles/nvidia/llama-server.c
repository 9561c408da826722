/* Double of a llama.cpp that was built for GPUs: says what such a build says when it has put the
 * layers of its model on a GPU, and becomes the real server, which computes on the CPU.
 *
 * Like the real one it puts them there if the container has a GPU (an environment variable, see
 * nvidia-ctk) and unless --n-gpu-layers says otherwise.
 *
 * Build: gcc -static -s -o llama-server llama-server.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LAYERS = 3 };

int main(int count, char **arguments) {
  extern char **environ;
  int given = 0, layers = LAYERS;
  for (char **each = environ; *each; each++)
    if (!strncmp(*each, "LLMHOST_DOUBLE_GPU_", 19)) given = 1;
  for (int i = 1; i + 1 < count; i++)
    if (!strcmp(arguments[i], "--n-gpu-layers")) layers = atoi(arguments[i + 1]);
  if (given)
    fprintf(stderr, "0.00.000.000 I load_tensors: offloaded %d/%d layers to GPU\n",
            layers < LAYERS ? layers : LAYERS, LAYERS);
  execv("/usr/bin/llama-server", arguments);
  perror("/usr/bin/llama-server");
  return 1;
}
