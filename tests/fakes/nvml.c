/*
 * An NVML that does what a script says. The file named in FAKE_NVML_SCRIPT is read again at every call, so that a test
 * can change the machine while the driver is in use; every call is noted in the file of the same name with ".calls".
 *
 * Lines of the script, later ones win; GPU is a number or *, FUNCTION a name or *:
 *   gpus N                      how many there are
 *   mig GPU N                   partition it into N slices
 *   generation GPU N            another number makes all handles of the GPU invalid, as a reset does
 *   value FUNCTION GPU A B ...  what the function tells, in NVML's units
 *   text FUNCTION GPU WORDS     the same for names
 *   process FUNCTION GPU PID BYTES
 *   fail FUNCTION GPU CODE      return this code; GPU is * for functions that are about no GPU
 *   hang FUNCTION               do not return while this line is there
 *
 * With EARLIER defined it is a driver from before 2021, without the functions that came since.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long long u64;
typedef struct { int gpu, slice, generation; } device;
typedef struct { u64 total, free, used; } memory_v1;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2;
typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } process;
typedef struct { unsigned version, sensor; int temperature; } temperature_v1;

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7 };
enum { MOST_GPUS = 8, MOST_SLICES = 7, LINE = 512 };

static int initialized; /* how often, for it has to be shut down as often */

/* What is looked for in the script, and what was found. */
typedef struct {
    const char *function;
    int gpu, found;
    u64 numbers[5];
    char text[LINE];
    process *list;
    unsigned room;
} query;

static int fits(const char *pattern, const char *word) { return !strcmp(pattern, "*") || !strcmp(pattern, word); }

/* Take what a line says of a function. */
static void note(const char *kind, const char *rest, query *q)
{
    u64 pid, bytes;
    if (!strcmp(kind, "text")) {
        snprintf(q->text, sizeof q->text, "%s", rest);
        q->text[strcspn(q->text, "\n")] = 0;
        q->found = 1;
    } else if (strcmp(kind, "process")) {
        q->found = sscanf(rest, "%llu %llu %llu %llu %llu", &q->numbers[0], &q->numbers[1], &q->numbers[2],
                          &q->numbers[3], &q->numbers[4]);
    } else if (sscanf(rest, "%llu %llu", &pid, &bytes) == 2) {
        if (q->list && (unsigned)q->found < q->room)
            q->list[q->found] = (process){(unsigned)pid, bytes, 0, 0};
        q->found++;
    }
}

static void look(const char *kind, query *q)
{
    const char *path = getenv("FAKE_NVML_SCRIPT");
    FILE *script = path ? fopen(path, "r") : NULL;
    char line[LINE], gpu[16];
    snprintf(gpu, sizeof gpu, "%d", q->gpu);
    q->found = 0;
    while (script && fgets(line, sizeof line, script)) {
        char word[32], function[96], of[16];
        int used = 0;
        if (sscanf(line, "%31s", word) != 1 || strcmp(word, kind))
            continue;
        if (!strcmp(kind, "gpus")) {
            q->found = sscanf(line, "%*s %llu", &q->numbers[0]);
        } else if (!strcmp(kind, "hang")) {
            q->found |= sscanf(line, "%*s %95s", function) == 1 && fits(function, q->function);
        } else if (!strcmp(kind, "mig") || !strcmp(kind, "generation")) {
            u64 amount;
            if (sscanf(line, "%*s %15s %llu", of, &amount) == 2 && fits(of, gpu)) {
                q->numbers[0] = amount;
                q->found = 1;
            }
        } else if (sscanf(line, "%*s %95s %15s %n", function, of, &used) == 2 && used &&
                   fits(function, q->function) && fits(of, gpu)) {
            note(kind, line + used, q);
        }
    }
    if (script)
        fclose(script);
}

static u64 number(const char *kind, int gpu, u64 otherwise)
{
    query q = {.gpu = gpu};
    look(kind, &q);
    return q.found ? q.numbers[0] : otherwise;
}

static int is_hanging(const char *function)
{
    query q = {.function = function};
    look("hang", &q);
    return q.found;
}

/* What every call does first: it is noted, may hang, may be told to fail, and needs a good handle. */
static int begin(const char *function, device *d)
{
    char path[1024];
    query q = {.function = function, .gpu = d ? d->gpu : -1};
    FILE *calls;
    snprintf(path, sizeof path, "%s.calls", getenv("FAKE_NVML_SCRIPT"));
    if ((calls = fopen(path, "a"))) {
        fprintf(calls, "%s\n", function);
        fclose(calls);
    }
    while (is_hanging(function))
        usleep(2000);
    look("fail", &q);
    if (q.found)
        return (int)q.numbers[0];
    if (!initialized && strcmp(function, "nvmlInitWithFlags"))
        return UNINITIALIZED;
    if (d && (u64)d->generation != number("generation", d->gpu, 0))
        return INVALID_ARGUMENT;
    return OK;
}

static int tell(const char *function, device *d, query *q)
{
    int code = begin(function, d);
    *q = (query){.function = function, .gpu = d ? d->gpu : -1};
    if (code == OK)
        look("value", q);
    return code != OK ? code : q->found ? OK : NOT_SUPPORTED;
}

static int tell_one(const char *function, device *d, unsigned *out)
{
    query q;
    int code = tell(function, d, &q);
    if (code == OK)
        *out = (unsigned)q.numbers[0];
    return code;
}

static int tell_text(const char *function, device *d, char *out, unsigned room)
{
    query q = {.function = function, .gpu = d ? d->gpu : -1};
    int code = begin(function, d);
    if (code != OK)
        return code;
    look("text", &q);
    if (!q.found)
        return NOT_SUPPORTED;
    if (d && d->slice >= 0)
        snprintf(out, room, "MIG-%s-%d", q.text, d->slice);
    else
        snprintf(out, room, "%s", q.text);
    return OK;
}

static int list(const char *function, device *d, unsigned *count, process *out)
{
    int code = begin(function, d);
    query q = {.function = function, .gpu = d->gpu, .list = out, .room = *count};
    if (code != OK)
        return code;
    look("process", &q);
    code = !q.found || (out && (unsigned)q.found <= *count) ? OK : TOO_SMALL;
    *count = (unsigned)q.found;
    return code;
}

int nvmlInitWithFlags(unsigned flags)
{
    int code = begin(__func__, NULL);
    (void)flags;
    initialized += code == OK;
    return code;
}

int nvmlShutdown(void)
{
    int code = begin(__func__, NULL);
    initialized -= code == OK;
    return code;
}

int nvmlDeviceGetCount_v2(unsigned *out)
{
    int code = begin(__func__, NULL);
    *out = (unsigned)number("gpus", -1, 0);
    return code;
}

static device devices[MOST_GPUS], slices[MOST_GPUS][MOST_SLICES];

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device **out)
{
    device d = {(int)index, -1, (int)number("generation", (int)index, 0)};
    int code = begin(__func__, &d);
    if (index >= number("gpus", -1, 0))
        return INVALID_ARGUMENT;
    devices[index] = d;
    *out = &devices[index];
    return code;
}

int nvmlSystemGetDriverVersion(char *out, unsigned room) { return tell_text(__func__, NULL, out, room); }
int nvmlSystemGetCudaDriverVersion_v2(unsigned *out) { return tell_one(__func__, NULL, out); }
int nvmlDeviceGetName(device *d, char *out, unsigned room) { return tell_text(__func__, d, out, room); }
int nvmlDeviceGetUUID(device *d, char *out, unsigned room) { return tell_text(__func__, d, out, room); }
int nvmlDeviceGetPowerUsage(device *d, unsigned *out) { return tell_one(__func__, d, out); }
int nvmlDeviceGetEnforcedPowerLimit(device *d, unsigned *out) { return tell_one(__func__, d, out); }
int nvmlDeviceGetFanSpeed(device *d, unsigned *out) { return tell_one(__func__, d, out); }

int nvmlDeviceGetTotalEnergyConsumption(device *d, u64 *out)
{
    query q;
    int code = tell(__func__, d, &q);
    *out = q.numbers[0];
    return code;
}

int nvmlDeviceGetUtilizationRates(device *d, unsigned *out)
{
    query q;
    int code = tell(__func__, d, &q);
    out[0] = (unsigned)q.numbers[0];
    out[1] = (unsigned)q.numbers[1];
    return code;
}

int nvmlDeviceGetClockInfo(device *d, unsigned domain, unsigned *out)
{
    query q;
    int code = tell(__func__, d, &q);
    if (code == OK && (int)domain >= q.found)
        return NOT_SUPPORTED;
    *out = (unsigned)q.numbers[domain];
    return code;
}

/* Memory is told as total, used, reserved; what is reserved counts as used here. */
int nvmlDeviceGetMemoryInfo(device *d, memory_v1 *out)
{
    query q;
    int code = tell(__func__, d, &q);
    u64 parts = d->slice < 0 ? 1 : number("mig", d->gpu, 1), used = q.numbers[1] + q.numbers[2];
    *out = (memory_v1){q.numbers[0] / parts, (q.numbers[0] - used) / parts, used / parts};
    return code;
}

int nvmlDeviceGetMigMode(device *d, unsigned *current, unsigned *pending)
{
    int code = begin(__func__, d);
    query q = {.gpu = d->gpu};
    look("mig", &q);
    *current = *pending = (unsigned)q.found;
    return code != OK ? code : q.found ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetMaxMigDeviceCount(device *d, unsigned *out)
{
    *out = MOST_SLICES;
    return begin(__func__, d);
}

int nvmlDeviceGetMigDeviceHandleByIndex(device *d, unsigned index, device **out)
{
    int code = begin(__func__, d);
    if (code == OK && (index >= MOST_SLICES || index >= number("mig", d->gpu, 0)))
        code = NOT_FOUND;
    if (code == OK) {
        slices[d->gpu][index] = (device){d->gpu, (int)index, d->generation};
        *out = &slices[d->gpu][index];
    }
    return code;
}

int nvmlDeviceGetComputeRunningProcesses_v2(device *d, unsigned *count, process *out) { return list(__func__, d, count, out); }
int nvmlDeviceGetGraphicsRunningProcesses_v2(device *d, unsigned *count, process *out) { return list(__func__, d, count, out); }

#ifdef EARLIER

int nvmlDeviceGetTemperature(device *d, unsigned sensor, unsigned *out)
{
    (void)sensor;
    return tell_one(__func__, d, out);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(device *d, u64 *out)
{
    query q;
    int code = tell(__func__, d, &q);
    *out = q.numbers[0];
    return code;
}

#else

int nvmlDeviceGetMemoryInfo_v2(device *d, memory_v2 *out)
{
    query q;
    int code = tell(__func__, d, &q);
    u64 parts = d->slice < 0 ? 1 : number("mig", d->gpu, 1), rest = q.numbers[0] - q.numbers[1] - q.numbers[2];
    out->total = q.numbers[0] / parts;
    out->used = q.numbers[1] / parts;
    out->reserved = q.numbers[2] / parts;
    out->free = rest / parts;
    return code;
}

int nvmlDeviceGetTemperatureV(device *d, temperature_v1 *out)
{
    query q;
    int code = tell("nvmlDeviceGetTemperatureV", d, &q);
    out->temperature = (int)q.numbers[0];
    return code;
}

int nvmlDeviceGetCurrentClocksEventReasons(device *d, u64 *out)
{
    query q;
    int code = tell(__func__, d, &q);
    *out = q.numbers[0];
    return code;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device *d, unsigned *count, process *out) { return list(__func__, d, count, out); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(device *d, unsigned *count, process *out) { return list(__func__, d, count, out); }

#endif
