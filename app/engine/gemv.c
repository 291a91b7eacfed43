/* The product of one row with a matrix, by the BLAS function that is for it.
 *
 * MLX computes every product on a CPU with cblas_sgemm, which first copies the matrix into the order that its kernels
 * like. That pays where many rows are multiplied by it; a decode step of one row takes longer for the copies than for
 * the product. Preloaded before OpenBLAS, this takes such calls to cblas_sgemv and hands on all others. Small matrices
 * are not copied: there the two are even, until gemv wakes other threads for a product that takes less than that does.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 };
enum { SMALL = 1 << 17 }; /* numbers in a matrix, below which it is */

typedef void gemm(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float *a, int lda,
                  const float *b, int ldb, float beta, float *c, int ldc);
typedef void gemv(int order, int transpose, int rows, int columns, float alpha, const float *a, int lda, const float *x,
                  int step_x, float beta, float *y, int step_y);

static gemm *next_gemm;
static gemv *next_gemv;

__attribute__((constructor)) static void find(void)
{
    next_gemm = (gemm *)dlsym(RTLD_NEXT, "cblas_sgemm");
    next_gemv = (gemv *)dlsym(RTLD_NEXT, "cblas_sgemv");
}

/* c [m, n] = alpha op(a) [m, k] op(b) [k, n] + beta c, as https://www.netlib.org/blas defines it. */
void cblas_sgemm(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float *a, int lda,
                 const float *b, int ldb, float beta, float *c, int ldc)
{
    int step = transpose_a == NO_TRANSPOSE ? 1 : lda;
    if (order != ROW_MAJOR || m != 1 || (long)n * k < SMALL || !next_gemv) {
        next_gemm(order, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
        return;
    }
    if (beta == 0)
        memset(c, 0, n * sizeof *c); /* it may hold what is no number, which gemv may multiply by beta */
    if (transpose_b == NO_TRANSPOSE)
        next_gemv(ROW_MAJOR, TRANSPOSE, k, n, alpha, b, ldb, a, step, beta, c, 1);
    else
        next_gemv(ROW_MAJOR, NO_TRANSPOSE, n, k, alpha, b, ldb, a, step, beta, c, 1);
}
