/* The passes before and after the network, as tiles.py does them on the CPU: the same arithmetic in
 * the same order, and no fused multiply-add (the compiler is told), so that both give the same bits.
 * One thread for every packed position. Record is laid out as RECORD of passes.py. */

struct Record {
    /* Sizes and places, in packed samples: of the tile, the halo within, the core within that. */
    int rows, columns, top, left, halo, core_rows, core_columns;
    /* In samples of the mosaic: the frame, its red corner, the part of it that the tile needs, and
     * the part of the result that the core covers. */
    int height, width, red_row, red_column;
    int patch_top, patch_left, patch_width;
    int result_top, result_left, result_width;
    int float_samples, float_result, row_levels, column_levels, reserved;
    /* By plane R, Gr, Gb, B. */
    float black[4], scale[4], shot[4], read[4], gain[4], offset[4];
    float kept;
};

/* The place i of a mirror image that goes on for ever; the edge sample is not repeated. */
static __device__ int mirrored(int i, int length)
{
    int period = 2 * (length - 1);
    i %= period;
    if (i < 0)
        i += period;
    return i < length ? i : period - i;
}

static __device__ float sample_at(const Record &tile, const void *patch, int y, int x)
{
    int index = (y - tile.patch_top) * tile.patch_width + x - tile.patch_left;
    return tile.float_samples ? ((const float *)patch)[index]
                              : (float)((const unsigned short *)patch)[index];
}

/* noisy, variance: (4, rows, columns), the second only where the network takes one. row_levels, column_levels: what they add to black, and what
 * they add to the result, of every row and column of the patch. broken becomes 0. */
extern "C" __global__ void cut(Record tile, const void *patch, const float *row_levels,
                               const float *column_levels, float *noisy, float *variance,
                               int *broken)
{
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    int row = blockIdx.y * blockDim.y + threadIdx.y;
    if (row == 0 && column == 0)
        *broken = 0;
    if (row >= tile.rows || column >= tile.columns)
        return;
    for (int plane = 0; plane < 4; plane++) {
        int y = mirrored(2 * (tile.top + row) + plane / 2 - tile.red_row, tile.height);
        int x = mirrored(2 * (tile.left + column) + plane % 2 - tile.red_column, tile.width);
        float value = sample_at(tile, patch, y, x) - tile.black[plane];
        if (tile.row_levels)
            value -= row_levels[y - tile.patch_top];
        if (tile.column_levels)
            value -= column_levels[x - tile.patch_left];
        value *= tile.scale[plane];
        int place = (plane * tile.rows + row) * tile.columns + column;
        noisy[place] = value;
        if (variance)
            variance[place] = (value < 0 ? 0 : value) * tile.shot[plane] + tile.read[plane];
    }
}

/* denoised: (4, rows, columns). result: the mosaic under the core, row by row. broken: becomes 1
 * where the network put out something that is no number. */
extern "C" __global__ void stitch(Record tile, const void *patch, const float *row_offsets,
                                  const float *column_offsets, const float *denoised, void *result,
                                  int *broken)
{
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    int row = blockIdx.y * blockDim.y + threadIdx.y;
    if (row >= tile.core_rows || column >= tile.core_columns)
        return;
    row += tile.halo;
    column += tile.halo;
    for (int plane = 0; plane < 4; plane++) {
        int y = 2 * (tile.top + row) + plane / 2 - tile.red_row;
        int x = 2 * (tile.left + column) + plane % 2 - tile.red_column;
        if (y < 0 || y >= tile.height || x < 0 || x >= tile.width)
            continue;
        float value = denoised[(plane * tile.rows + row) * tile.columns + column];
        if (!isfinite(value))
            *broken = 1;
        float before = sample_at(tile, patch, y, x);
        float after = value * tile.gain[plane] + tile.offset[plane];
        if (tile.row_levels)
            after += row_offsets[y - tile.patch_top];
        if (tile.column_levels)
            after += column_offsets[x - tile.patch_left];
        if (tile.kept != 0)
            after += before * tile.kept;
        if (!tile.float_result)
            after = fminf(fmaxf(rintf(after), 0.0f), 65535.0f);
        if (tile.reserved >= 0) {
            if (after == tile.reserved)
                after += tile.reserved < 65535 ? 1 : -1;
            if (before == tile.reserved)
                after = tile.reserved;
        }
        int index = (y - tile.result_top) * tile.result_width + x - tile.result_left;
        if (tile.float_result)
            ((float *)result)[index] = after;
        else
            ((unsigned short *)result)[index] = (unsigned short)after;
    }
}
