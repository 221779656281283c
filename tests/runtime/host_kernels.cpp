/* passes.cu on the host: as many calls as the GPU would have threads, one after the other. */

#include <cmath>
#include <utility>

struct Place { unsigned x, y; };
static Place blockIdx, blockDim, threadIdx;

#define __global__
#define __device__
using std::isfinite;

#include "passes.cu"

template <typename... Types, std::size_t... Each>
static void call(void (*kernel)(Types...), void **arguments, std::index_sequence<Each...>)
{
    kernel(*static_cast<Types *>(arguments[Each])...);
}

template <typename... Types>
static void launch(void (*kernel)(Types...), Place grid, Place block, void **arguments)
{
    blockDim = block;
    for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++)
            for (threadIdx.y = 0; threadIdx.y < block.y; threadIdx.y++)
                for (threadIdx.x = 0; threadIdx.x < block.x; threadIdx.x++)
                    call(kernel, arguments, std::index_sequence_for<Types...>());
}

extern "C" void launch_cut(Place grid, Place block, void **arguments)
{
    launch(cut, grid, block, arguments);
}

extern "C" void launch_stitch(Place grid, Place block, void **arguments)
{
    launch(stitch, grid, block, arguments);
}
