/* Double of libnvidia-ml.so.1, as far as nvidia-ml-py asks it for llmhost's probe and metrics.
 *
 * GPUs come from the double's list (hardware.py). Like the real library it works only with a loaded
 * driver of its own version. A process counts as one that holds memory of GPU N if its environment
 * has LLMHOST_DOUBLE_GPU_N, which the double of nvidia-ctk gives to containers: its pid is real,
 * its "GPU memory" is its resident memory, and it worked if it used the processor. With
 * LLMHOST_DOUBLE_OWNER, only processes whose value begins with that count.
 *
 * The file of failures has lines `FUNCTION CODE`: that function then returns that NVML error
 * (https://docs.nvidia.com/deploy/nvml-api, nvmlReturn_t); CODE 0 makes a list empty. FUNCTION@N
 * fails for GPU N alone.
 *
 * Build: gcc -shared -fPIC -DVERSION='"580.159.03"' -o libnvidia-ml.so.1 nvml.c
 */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
  DRIVER_NOT_LOADED = 9, LIB_RM_VERSION_MISMATCH = 18, UNKNOWN = 999
};
enum { MAX_GPUS = 16 };

typedef struct {
  char uuid[80], address[32], product[96];
  unsigned long long memory;
  unsigned watts;
  int mig;
} Gpu;

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct {
  char legacy[16];
  unsigned domain, bus, device, device_id, subsystem_id;
  char bus_id[32];
} PciInfo;
typedef struct {
  unsigned pid;
  unsigned long long memory;
  unsigned gpu_instance, compute_instance;
} Process;
typedef struct {
  unsigned pid;
  unsigned long long time;
  unsigned sm, memory, encoder, decoder;
} Sample;

static Gpu gpus[MAX_GPUS];
static unsigned count;
static int ready;

static const char *place(const char *variable, const char *usual) {
  const char *value = getenv(variable);
  return value ? value : usual;
}

/* The error that a test asked this function to return, or `otherwise`. */
static int fault(const char *function, int otherwise) {
  char name[96];
  int code, found = otherwise;
  FILE *file = fopen(place("LLMHOST_DOUBLE_FAILURES", "/etc/llmhost-double/failures"), "r");
  if (!file) return otherwise;
  while (fscanf(file, "%95s %d", name, &code) == 2)
    if (!strcmp(name, function)) found = code;
  fclose(file);
  return found;
}

#define GUARD()                                             \
  do {                                                      \
    int code = fault(__func__, -1);                         \
    if (code > 0) return code;                              \
    if (!ready) return UNINITIALIZED;                       \
  } while (0)
#define GUARD_GPU(gpu)                                      \
  GUARD();                                                  \
  if ((gpu) < gpus || (gpu) >= gpus + count) return INVALID_ARGUMENT

static int driver(void) {
  char line[256] = "";
  FILE *file = fopen(place("LLMHOST_DOUBLE_LOADED", "/proc/driver/nvidia/version"), "r");
  if (!file) return DRIVER_NOT_LOADED;
  char *read = fgets(line, sizeof line, file);
  fclose(file);
  if (!read) return DRIVER_NOT_LOADED;
  return strstr(line, " " VERSION " ") ? SUCCESS : LIB_RM_VERSION_MISMATCH;
}

static void read_gpus(void) {
  FILE *file = fopen(place("LLMHOST_DOUBLE_GPUS", "/etc/llmhost-double/gpus"), "r");
  count = 0;
  if (!file) return;
  while (count < MAX_GPUS) {
    Gpu *gpu = &gpus[count];
    if (fscanf(file, "%*u %79s %31s %llu %u %d %95[^\n]", gpu->uuid, gpu->address, &gpu->memory,
               &gpu->watts, &gpu->mig, gpu->product) != 6)
      break;
    count++;
  }
  fclose(file);
}

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  int code = fault(__func__, driver());
  if (code) return code;
  read_gpus();
  ready = 1;
  return SUCCESS;
}

int nvmlShutdown(void) {
  ready = 0;
  return SUCCESS;
}

const char *nvmlErrorString(int code) {
  switch (code) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
    default: return "Unknown Error";
  }
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
  GUARD();
  snprintf(version, length, "%s", VERSION);
  return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
  GUARD();
  *version = atoi(VERSION) >= 590 ? 13020 : atoi(VERSION) >= 580 ? 13000 : 12020;
  return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *found) {
  GUARD();
  *found = count;
  return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **gpu) {
  GUARD();
  if (index >= count) return INVALID_ARGUMENT;
  char one[96];
  snprintf(one, sizeof one, "%s@%u", __func__, index);
  int lost = fault(one, 0);
  if (lost) return lost;
  *gpu = &gpus[index];
  return SUCCESS;
}

int nvmlDeviceGetUUID(Gpu *gpu, char *uuid, unsigned length) {
  GUARD_GPU(gpu);
  snprintf(uuid, length, "%s", gpu->uuid);
  return SUCCESS;
}

int nvmlDeviceGetName(Gpu *gpu, char *product, unsigned length) {
  GUARD_GPU(gpu);
  snprintf(product, length, "%s", gpu->product);
  return SUCCESS;
}

int nvmlDeviceGetPciInfo_v3(Gpu *gpu, PciInfo *info) {
  GUARD_GPU(gpu);
  memset(info, 0, sizeof *info);
  snprintf(info->bus_id, sizeof info->bus_id, "0000%.20s", gpu->address);
  for (char *letter = info->bus_id; *letter; letter++) *letter = (char)toupper(*letter);
  snprintf(info->legacy, sizeof info->legacy, "%.15s", gpu->address);
  return SUCCESS;
}

/* What a number in the double's state says of a GPU, or `otherwise`. */
static unsigned state(const Gpu *gpu, const char *what, unsigned otherwise) {
  char path[256];
  unsigned value = otherwise;
  const char *directory = place("LLMHOST_DOUBLE_STATE", "/run/llmhost-double");
  snprintf(path, sizeof path, "%s/%d.%s", directory, (int)(gpu - gpus), what);
  FILE *file = fopen(path, "r");
  if (!file) return otherwise;
  if (fscanf(file, "%u", &value) != 1) value = otherwise;
  fclose(file);
  return value;
}

int nvmlDeviceGetPersistenceMode(Gpu *gpu, int *mode) {
  GUARD_GPU(gpu);
  *mode = (int)state(gpu, "persistence", 0);
  return SUCCESS;
}

int nvmlDeviceGetPowerManagementLimit(Gpu *gpu, unsigned *milliwatts) {
  GUARD_GPU(gpu);
  *milliwatts = 1000 * state(gpu, "power", gpu->watts);
  return SUCCESS;
}

int nvmlDeviceGetMigMode(Gpu *gpu, unsigned *current, unsigned *pending) {
  GUARD_GPU(gpu);
  if (gpu->mig < 0) return NOT_SUPPORTED;
  *current = *pending = (unsigned)gpu->mig;
  return SUCCESS;
}

static int is_wsl(void) {
  char release[128] = "";
  FILE *file = fopen("/proc/sys/kernel/osrelease", "r");
  if (!file) return 0;
  char *read = fgets(release, sizeof release, file);
  fclose(file);
  return read && strstr(release, "icrosoft") != NULL;
}

/* NVML on WSL knows neither utilisation nor processes. */
int nvmlDeviceGetUtilizationRates(Gpu *gpu, Utilization *rates) {
  GUARD_GPU(gpu);
  if (is_wsl()) return NOT_SUPPORTED;
  rates->gpu = rates->memory = 0;
  return SUCCESS;
}

/* Figures of an idle GPU, unless the double's state has others. */
int nvmlDeviceGetTemperature(Gpu *gpu, int sensor, unsigned *celsius) {
  (void)sensor;
  GUARD_GPU(gpu);
  *celsius = state(gpu, "temperature", 40);
  return SUCCESS;
}

int nvmlDeviceGetPowerUsage(Gpu *gpu, unsigned *milliwatts) {
  GUARD_GPU(gpu);
  *milliwatts = state(gpu, "usage", 25500);
  return SUCCESS;
}

int nvmlDeviceGetClockInfo(Gpu *gpu, int clock, unsigned *megahertz) {
  GUARD_GPU(gpu);
  *megahertz = clock == 1 ? 210 : 405;
  return SUCCESS;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(Gpu *gpu, unsigned long long *reasons) {
  GUARD_GPU(gpu);
  *reasons = state(gpu, "throttled", 1);  /* idle */
  return SUCCESS;
}

static int was_given(const char *pid, unsigned index) {
  char path[64], variable[96], buffer[65536];
  snprintf(path, sizeof path, "/proc/%.16s/environ", pid);
  snprintf(variable, sizeof variable, "LLMHOST_DOUBLE_GPU_%u=%.48s", index,
           place("LLMHOST_DOUBLE_OWNER", ""));
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  size_t length = fread(buffer, 1, sizeof buffer - 1, file);
  fclose(file);
  buffer[length] = 0;
  for (size_t at = 0; at < length; at += strlen(buffer + at) + 1)
    if (!strncmp(buffer + at, variable, strlen(variable))) return 1;
  return 0;
}

static unsigned long long resident(const char *pid) {
  char path[64], line[128];
  unsigned long long kib = 0;
  snprintf(path, sizeof path, "/proc/%.16s/status", pid);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  while (fgets(line, sizeof line, file) && sscanf(line, "VmRSS: %llu", &kib) != 1) {}
  fclose(file);
  return kib * 1024;
}

/* In ticks. */
static unsigned long long processor_time(unsigned pid) {
  char path[64], line[1024] = "";
  unsigned long long user = 0, kernel = 0;
  snprintf(path, sizeof path, "/proc/%u/stat", pid);
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  if (fgets(line, sizeof line, file) && strrchr(line, ')'))
    sscanf(strrchr(line, ')'), ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
           &kernel);
  fclose(file);
  return user + kernel;
}

static unsigned list_processes(const Gpu *gpu, Process *list, unsigned room) {
  unsigned found = 0;
  DIR *proc = opendir("/proc");
  struct dirent *entry;
  if (!proc) return 0;
  while ((entry = readdir(proc)) != NULL) {
    if (!isdigit((unsigned char)entry->d_name[0])) continue;
    if (!was_given(entry->d_name, (unsigned)(gpu - gpus))) continue;
    if (list && found < room)
      list[found] = (Process){(unsigned)atoi(entry->d_name), resident(entry->d_name), ~0u, ~0u};
    found++;
  }
  closedir(proc);
  return found;
}

int nvmlDeviceGetMemoryInfo(Gpu *gpu, Memory *memory) {
  GUARD_GPU(gpu);
  Process list[256];
  unsigned found = list_processes(gpu, list, 256);
  memory->total = gpu->memory;
  memory->used = 0;
  for (unsigned i = 0; i < found && i < 256; i++) memory->used += list[i].memory;
  memory->free = memory->used < memory->total ? memory->total - memory->used : 0;
  return SUCCESS;
}

/* As the real library: the size first, so that a caller may ask with no room at all. */
int nvmlDeviceGetComputeRunningProcesses_v3(Gpu *gpu, unsigned *room, Process *list) {
  GUARD_GPU(gpu);
  if (is_wsl()) return NOT_SUPPORTED;
  unsigned found = fault(__func__, -1) == 0 ? 0 : list_processes(gpu, list, *room);
  unsigned had = *room;
  *room = found;
  return found > had ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetProcessUtilization(Gpu *gpu, Sample *list, unsigned *room,
                                    unsigned long long since) {
  GUARD_GPU(gpu);
  (void)since;
  if (is_wsl()) return NOT_SUPPORTED;
  Process held[256];
  unsigned had = *room, found = list_processes(gpu, held, 256);
  if (fault(__func__, -1) == 0 || !found) return NOT_FOUND;
  *room = found;
  if (!list || found > had) return INSUFFICIENT_SIZE;
  for (unsigned i = 0; i < found; i++)
    list[i] = (Sample){held[i].pid, 1, processor_time(held[i].pid) > 2 ? 40 : 0, 0, 0, 0};
  return SUCCESS;
}
