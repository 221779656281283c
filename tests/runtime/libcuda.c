/* A libcuda for tests, on a machine without a GPU: what it is asked happens at once, in the memory
 * of the host. It refuses handles that it did not give and calls without a current context, and
 * keeps count of what was not given back. Signatures and status values are those of cuda.h. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_CONTEXT = 201,
       INVALID_HANDLE = 400, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700 };

/* Read by the tests. */
int integrated, retained, fault;
size_t largest = 1 << 20;
int live[7], replayed;
static _Thread_local int depth;

int current_contexts(void) { return depth; }

enum Kind { DEVICE_MEMORY, HOST_MEMORY, STREAM, EVENT, MODULE, GRAPH, LAUNCHABLE };
typedef struct { enum Kind kind; size_t size; int place; void *memory; } Thing;

enum { MOST = 256 };
static Thing *things[MOST];
static int clock_ms;
static char the_context;
static void *capturing;
static size_t captured;

static int make(enum Kind kind, size_t size, Thing **made) {
    if (!depth) return INVALID_CONTEXT;
    if (fault) return ILLEGAL_ADDRESS;
    if (size > largest) return OUT_OF_MEMORY;
    for (int i = 0; i < MOST; i++) {
        if (things[i]) continue;
        *made = things[i] = calloc(1, sizeof(Thing));
        (*made)->kind = kind, (*made)->size = size, (*made)->memory = malloc(size + 1);
        live[kind]++;
        return OK;
    }
    return OUT_OF_MEMORY;
}

static Thing *find(enum Kind kind, const void *handle) {
    for (int i = 0; i < MOST; i++) {
        int by_memory = kind == DEVICE_MEMORY || kind == HOST_MEMORY;
        if (things[i] && things[i]->kind == kind
            && handle == (by_memory ? things[i]->memory : (void *)things[i]))
            return things[i];
    }
    return NULL;
}

static int drop(enum Kind kind, void *handle) {
    if (!depth) return INVALID_CONTEXT;
    if (fault) return ILLEGAL_ADDRESS;
    for (int i = 0; i < MOST; i++) {
        if (!things[i] || things[i] != find(kind, handle)) continue;
        free(things[i]->memory), free(things[i]);
        things[i] = NULL;
        live[kind]--;
        return OK;
    }
    return INVALID_HANDLE;
}

static int copy(void *to, const void *from, size_t size, const Thing *device, const Thing *host,
                void *stream) {
    if (!depth) return INVALID_CONTEXT;
    if (fault) return ILLEGAL_ADDRESS;
    if (!device || !host || !find(STREAM, stream)) return INVALID_HANDLE;
    if (size > device->size || size > host->size) return INVALID_VALUE;
    memcpy(to, from, size);
    clock_ms++;
    return OK;
}

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : OK; }
int cuDriverGetVersion(int *version) { return *version = 13000, OK; }
int cuDeviceGetCount(int *count) { return *count = 1, OK; }
int cuDeviceGet(int *device, int ordinal) { return *device = 0, ordinal ? NO_DEVICE : OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 18 && integrated; /* CU_DEVICE_ATTRIBUTE_INTEGRATED */
    return device ? NO_DEVICE : OK;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
    return *context = &the_context, retained++, device ? NO_DEVICE : OK;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
    return retained-- > 0 && !device ? OK : INVALID_CONTEXT;
}
int cuCtxPushCurrent_v2(void *context) {
    if (context != &the_context || !retained) return INVALID_CONTEXT;
    return depth++, OK;
}
int cuCtxPopCurrent_v2(void **context) {
    if (!depth) return INVALID_CONTEXT;
    return *context = &the_context, depth--, OK;
}
int cuMemAlloc_v2(uint64_t *address, size_t size) {
    Thing *made = NULL;
    int status = make(DEVICE_MEMORY, size, &made);
    if (!status) *address = (uint64_t)made->memory;
    return status;
}
int cuMemFree_v2(uint64_t address) { return drop(DEVICE_MEMORY, (void *)address); }
int cuMemHostAlloc(void **pinned, size_t size, unsigned flags) {
    Thing *made = NULL;
    int status = flags == 2 ? make(HOST_MEMORY, size, &made) : INVALID_VALUE; /* DEVICEMAP */
    if (!status) *pinned = made->memory;
    return status;
}
int cuMemFreeHost(void *pinned) { return drop(HOST_MEMORY, pinned); }
int cuMemHostGetDevicePointer_v2(uint64_t *address, void *pinned, unsigned flags) {
    *address = (uint64_t)pinned;
    return find(HOST_MEMORY, pinned) && !flags ? OK : INVALID_VALUE;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream) {
    return copy((void *)to, from, size, find(DEVICE_MEMORY, (void *)to), find(HOST_MEMORY, from),
                stream);
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream) {
    return copy(to, (void *)from, size, find(DEVICE_MEMORY, (void *)from), find(HOST_MEMORY, to),
                stream);
}
/* CUDA_MEMCPY2D, halved. */
typedef struct {
    size_t first_byte, first_row;
    unsigned kind;
    void *host;
    uint64_t device;
    void *array;
    size_t pitch;
} Side;
typedef struct { Side source, target; size_t width, height; } Copy2D;

int cuMemcpy2DAsync_v2(const Copy2D *what, void *stream) {
    const Side *from = &what->source, *to = &what->target;
    int up = from->kind == 1 && to->kind == 2, down = from->kind == 2 && to->kind == 1;
    size_t rows = what->height, width = what->width;
    if (!up && !down) return INVALID_VALUE;
    if (width > from->pitch || width > to->pitch) return INVALID_VALUE;
    for (size_t row = 0; row < rows; row++) {
        char *source = up ? from->host : (void *)from->device;
        char *target = up ? (void *)to->device : to->host;
        int status = copy(target + row * to->pitch, source + row * from->pitch, width,
                          find(DEVICE_MEMORY, up ? target : source),
                          find(HOST_MEMORY, up ? source : target), stream);
        if (status) return status;
    }
    return OK;
}
int cuPointerGetAttribute(void *value, int attribute, uint64_t address) {
    *(int *)value = 0;
    if (attribute != 9) return INVALID_VALUE; /* CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL */
    return fault ? ILLEGAL_ADDRESS : find(DEVICE_MEMORY, (void *)address) ? OK : INVALID_VALUE;
}
/* A module is code that begins with "kernels"; its one function, "kernel", takes a struct of an int
 * and a float, and two pointers, and writes what it was called with where the first points. */
int cuModuleLoadData(void **module, const char *code) {
    return memcmp(code, "kernels", 7) ? INVALID_VALUE : make(MODULE, 0, (Thing **)module);
}
int cuModuleUnload(void *module) { return drop(MODULE, module); }
int cuModuleGetFunction(void **kernel, void *module, const char *name) {
    *kernel = module;
    return !find(MODULE, module) ? INVALID_HANDLE : strcmp(name, "kernel") ? NOT_FOUND : OK;
}
int cuLaunchKernel(void *kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                   void *stream, void **arguments, void **extra) {
    if (!depth) return INVALID_CONTEXT;
    if (fault) return ILLEGAL_ADDRESS;
    if (!find(MODULE, kernel) || !find(STREAM, stream)) return INVALID_HANDLE;
    if (grid_z != 1 || block_z != 1 || shared_bytes || extra) return INVALID_VALUE;
    struct { int number; float fraction; } *record = arguments[0];
    int *to = *(int **)arguments[1];
    if (stream == capturing) return captured++, OK;
    if (!find(DEVICE_MEMORY, to) || *(void **)arguments[2]) return INVALID_VALUE;
    int told[] = {grid_x, grid_y, block_x, block_y, record->number, (int)(8 * record->fraction)};
    memcpy(to, told, sizeof told);
    return OK;
}
/* While a stream is captured kernels do not run; a graph holds how many there were. */
int cuStreamBeginCapture_v2(void *stream, int mode) {
    if (mode != 1 || capturing) return INVALID_VALUE; /* THREAD_LOCAL */
    if (!find(STREAM, stream)) return INVALID_HANDLE;
    return capturing = stream, captured = 0, OK;
}
int cuStreamEndCapture(void *stream, void **graph) {
    if (!capturing || stream != capturing) return INVALID_VALUE;
    capturing = NULL;
    int status = make(GRAPH, captured, (Thing **)graph);
    return fault ? ILLEGAL_ADDRESS : status;
}
int cuGraphInstantiateWithFlags(void **launchable, void *graph, unsigned long long flags) {
    Thing *noted = find(GRAPH, graph);
    return !noted ? INVALID_HANDLE : flags ? INVALID_VALUE
         : make(LAUNCHABLE, noted->size, (Thing **)launchable);
}
int cuGraphDestroy(void *graph) { return drop(GRAPH, graph); }
int cuGraphExecDestroy(void *launchable) { return drop(LAUNCHABLE, launchable); }
int cuGraphLaunch(void *launchable, void *stream) {
    Thing *found = find(LAUNCHABLE, launchable);
    if (!found || !find(STREAM, stream)) return INVALID_HANDLE;
    return replayed += (int)found->size, OK;
}
int cuCtxSynchronize(void) { return !depth ? INVALID_CONTEXT : fault ? ILLEGAL_ADDRESS : OK; }
int cuStreamCreate(void **stream, unsigned flags) {
    return flags == 1 ? make(STREAM, 0, (Thing **)stream) : INVALID_VALUE; /* NON_BLOCKING */
}
int cuStreamDestroy_v2(void *stream) { return drop(STREAM, stream); }
int cuStreamSynchronize(void *stream) {
    return !depth ? INVALID_CONTEXT : fault ? ILLEGAL_ADDRESS
         : find(STREAM, stream) ? OK : INVALID_HANDLE;
}
int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    return find(STREAM, stream) && find(EVENT, event) && !flags ? OK : INVALID_HANDLE;
}
int cuEventCreate(void **event, unsigned flags) {
    return flags ? INVALID_VALUE : make(EVENT, 0, (Thing **)event);
}
int cuEventDestroy_v2(void *event) { return drop(EVENT, event); }
int cuEventRecord(void *event, void *stream) {
    Thing *found = find(EVENT, event);
    if (!found || !find(STREAM, stream)) return INVALID_HANDLE;
    return found->place = clock_ms, OK;
}
int cuEventElapsedTime(float *ms, void *start, void *end) {
    Thing *from = find(EVENT, start), *to = find(EVENT, end);
    if (!from || !to) return INVALID_HANDLE;
    return *ms = (float)(to->place - from->place), OK;
}
int cuEventElapsedTime_v2(float *ms, void *start, void *end) {
    return cuEventElapsedTime(ms, start, end);
}
int cuGetErrorString(int status, const char **text) {
    return *text = status == OUT_OF_MEMORY ? "out of memory" : "an error", OK;
}
int cuGetErrorName(int status, const char **text) { return cuGetErrorString(status, text); }

/* The newest of what stands above; cuda-bindings looks for everything that CUDA has. */
int cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags,
                        int *status) {
    char newest[100];
    (void)version, (void)flags;
    snprintf(newest, sizeof newest, "%s_v2", symbol);
    void *found = dlsym(RTLD_DEFAULT, newest);
    *function = found ? found : dlsym(RTLD_DEFAULT, symbol);
    if (status) *status = *function ? 0 : 1;
    return *function ? OK : NOT_FOUND;
}
int cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(symbol, function, version, flags, NULL);
}
