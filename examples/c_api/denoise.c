/* Denoises one RAW frame with an exported network, through ONNX Runtime's C API alone.
 *
 *     denoise MODEL.onnx IN.raw OUT.raw WIDTH HEIGHT CFA BLACK WHITE SHOT READ
 *
 * IN and OUT hold HEIGHT rows of WIDTH uint16, little endian; OUT's levels are IN's times the
 * largest power of two that 16 bits can hold. CFA is RGGB, GRBG, GBRG or BGGR. The noise of a
 * sample x in 0..1 has the variance SHOT x + READ. The frame is one tile, and all of the network's
 * correction is used; the Python runtime cuts tiles and uses the share that is expected to help.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onnxruntime_c_api.h"

enum {
    PLANES = 4, /* R, Gr, Gb, B: plane p stands at row p / 2, column p % 2 of an RGGB cell */
    HALO = 22,  /* mirrored cells around the frame, even: halo.for_120_db of bundle.json or more */
};

typedef struct {
    int64_t width, height;       /* of the mosaic */
    int64_t red_row, red_column; /* of the red sample in the first cell */
    int64_t cells_down, cells_across;
    int64_t rows, columns; /* of a packed plane, even as the network wants them */
    double black, white;
} Frame;

static const OrtApi *ort;

static void fail(const char *what, const char *why) {
    fprintf(stderr, "denoise: %s: %s\n", what, why);
    exit(1);
}

static void check(OrtStatus *status) {
    if (status != NULL) fail("ONNX Runtime", ort->GetErrorMessage(status));
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory == NULL) fail("memory", "there is not enough");
    return memory;
}

/* Index of a sample, mirrored at the border without repeating it, so that its colour stays. */
static int64_t mirrored(int64_t index, int64_t size) {
    const int64_t period = 2 * (size - 1);
    index = (index % period + period) % period;
    return index < size ? index : period - index;
}

static Frame frame_of(char **argument) {
    static const char *const phases[] = {"RGGB", "GRBG", "GBRG", "BGGR"};
    Frame frame = {.width = atol(argument[0]), .height = atol(argument[1])};
    int phase = 0;
    while (phase < 4 && strcmp(argument[2], phases[phase]) != 0) phase++;
    if (phase == 4) fail(argument[2], "not a phase");
    if (frame.width < 4 || frame.height < 4 || frame.width > 20000 || frame.height > 20000)
        fail("size", "4..20000 are possible");
    frame.red_row = phase / 2;
    frame.red_column = phase % 2;
    frame.cells_down = (frame.height + frame.red_row + 1) / 2;
    frame.cells_across = (frame.width + frame.red_column + 1) / 2;
    frame.rows = (frame.cells_down + 1) / 2 * 2 + 2 * HALO;
    frame.columns = (frame.cells_across + 1) / 2 * 2 + 2 * HALO;
    frame.black = atof(argument[3]);
    frame.white = atof(argument[4]);
    if (!(0 <= frame.black && frame.black < frame.white && frame.white <= 65535))
        fail("levels", "0 <= black < white <= 65535");
    return frame;
}

/* Samples to planes, black 0 and white 1, and the variance of each. Returns the noise scale: the
 * root of the mean variance of the frame, halo left out. */
static float pack(const Frame *frame, const uint16_t *samples, double shot, double read,
                  float *noisy, float *variance) {
    const float range = (float)(1 / (frame->white - frame->black));
    double sum = 0;
    int64_t i = 0;
    for (int64_t plane = 0; plane < PLANES; plane++)
        for (int64_t row = 0; row < frame->rows; row++)
            for (int64_t column = 0; column < frame->columns; column++, i++) {
                const int64_t down = row - HALO, across = column - HALO;
                int64_t y = mirrored(2 * down + plane / 2 - frame->red_row, frame->height);
                int64_t x = mirrored(2 * across + plane % 2 - frame->red_column, frame->width);
                noisy[i] = ((float)samples[y * frame->width + x] - (float)frame->black) * range;
                variance[i] = (float)shot * fmaxf(noisy[i], 0) + (float)read;
                if (down >= 0 && down < frame->cells_down && across >= 0 &&
                    across < frame->cells_across)
                    sum += variance[i];
            }
    return (float)sqrt(sum / (double)(PLANES * frame->cells_down * frame->cells_across));
}

/* Planes to samples, at 16 bits. */
static void unpack(const Frame *frame, const float *denoised, int scale, uint16_t *samples) {
    for (int64_t y = 0; y < frame->height; y++)
        for (int64_t x = 0; x < frame->width; x++) {
            int64_t row = y + frame->red_row, column = x + frame->red_column;
            int64_t plane = row % 2 * 2 + column % 2;
            int64_t i = (plane * frame->rows + row / 2 + HALO) * frame->columns + column / 2 + HALO;
            double sample = (denoised[i] * (frame->white - frame->black) + frame->black) * scale;
            samples[y * frame->width + x] = (uint16_t)fmin(fmax(rint(sample), 0), 65535);
        }
}

static OrtValue *tensor(const OrtMemoryInfo *memory, float *data, const int64_t *shape) {
    OrtValue *value = NULL;
    size_t bytes = (size_t)(shape[0] * shape[1] * shape[2] * shape[3]) * sizeof *data;
    check(ort->CreateTensorWithDataAsOrtValue(memory, data, bytes, shape, 4,
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
    return value;
}

/* The network from buffer to buffer. */
static void run(const char *model, const Frame *frame, float *noisy, float *variance,
                float noise_scale, float *denoised) {
    static const char *const inputs[] = {"noisy", "variance", "noise_scale"};
    static const char *const outputs[] = {"denoised"};
    const int64_t planes[] = {1, PLANES, frame->rows, frame->columns}, one[] = {1, 1, 1, 1};
    OrtEnv *environment = NULL;
    OrtSessionOptions *options = NULL;
    OrtSession *session = NULL;
    OrtMemoryInfo *memory = NULL;
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "denoise", &environment));
    check(ort->CreateSessionOptions(&options));
    check(ort->CreateSession(environment, model, options, &session));
    check(ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
    OrtValue *given[] = {tensor(memory, noisy, planes), tensor(memory, variance, planes),
                         tensor(memory, &noise_scale, one)};
    OrtValue *result = tensor(memory, denoised, planes);
    check(ort->Run(session, NULL, inputs, (const OrtValue *const *)given, 3, outputs, 1, &result));
    for (int i = 0; i < 3; i++) ort->ReleaseValue(given[i]);
    ort->ReleaseValue(result);
    ort->ReleaseMemoryInfo(memory);
    ort->ReleaseSession(session);
    ort->ReleaseSessionOptions(options);
    ort->ReleaseEnv(environment);
}

int main(int count, char **argument) {
    if (count != 11)
        fail("usage", "MODEL.onnx IN.raw OUT.raw WIDTH HEIGHT CFA BLACK WHITE SHOT READ");
    ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (ort == NULL) fail("ONNX Runtime", "the library is older than the header");
    const Frame frame = frame_of(argument + 4);
    const size_t samples_count = (size_t)(frame.width * frame.height);
    const size_t packed_count = (size_t)(PLANES * frame.rows * frame.columns);
    uint16_t *samples = allocate(samples_count, sizeof *samples);
    float *noisy = allocate(packed_count, sizeof *noisy);
    float *variance = allocate(packed_count, sizeof *variance);
    float *denoised = allocate(packed_count, sizeof *denoised);

    FILE *file = fopen(argument[2], "rb");
    if (file == NULL || fread(samples, sizeof *samples, samples_count, file) != samples_count)
        fail(argument[2], "cannot be read, or is smaller than the frame");
    fclose(file);

    const double shot = atof(argument[9]), read = atof(argument[10]);
    if (!(shot >= 0 && read >= 0 && isfinite(shot + read))) fail("noise", "SHOT and READ >= 0");
    float noise_scale = pack(&frame, samples, shot, read, noisy, variance);
    run(argument[1], &frame, noisy, variance, noise_scale, denoised);
    int scale = 1;
    while (frame.white * scale * 2 <= 65535) scale *= 2;
    unpack(&frame, denoised, scale, samples);

    file = fopen(argument[3], "wb");
    if (file == NULL || fwrite(samples, sizeof *samples, samples_count, file) != samples_count ||
        fclose(file) != 0)
        fail(argument[3], "cannot be written");
    printf("%s: levels x%d\n", argument[3], scale);
    free(samples);
    free(noisy);
    free(variance);
    free(denoised);
    return 0;
}
