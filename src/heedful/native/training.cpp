// Parts of training that torch takes many passes over memory for: attention between short sequences, dropout, layer
// normalization, and the softmax of the loss. Each is one pass here. Threads are those of torch's own OpenMP: see native/__init__.py.
//
// Tensors are float32 or bfloat16; sums and everything between a function's input and output are float32.

#include <algorithm>

#include "vectors.h"

typedef uint16_t half_vec __attribute__((vector_size(2 * LANES)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));

struct bfloat16 { uint16_t bits; };

// Where a tensor [sentences, heads, positions, width] begins, and how many elements lie between two of each; numbers
// of one position stand side by side.
struct View { void *data; int64_t sentence, head, position; };

// Which position may attend to which: bytes [sentences, positions, positions attended to], any stride may be 0.
struct Mask { const uint8_t *data; int64_t sentence, position, attended; };

struct Sizes { int64_t sentences, heads, positions, attended, d_k, d_v; };

namespace {

inline vec load(const bfloat16 *from) {
    half_vec bits;
    std::memcpy(&bits, from, sizeof bits);
    uvec wide = __builtin_convertvector(bits, uvec) << 16;
    vec v;
    std::memcpy(&v, &wide, sizeof v);
    return v;
}

inline void store(bfloat16 *to, vec v) {  // to the nearest, ties to even
#if defined(__AVX512BF16__)
    __m256bh narrow = _mm512_cvtneps_pbh((__m512)v);
#else
    uvec wide;
    std::memcpy(&wide, &v, sizeof wide);
    half_vec narrow = __builtin_convertvector((wide + 0x7fff + ((wide >> 16) & 1)) >> 16, half_vec);
#endif
    std::memcpy(to, &narrow, sizeof narrow);
}

// Fewer numbers than a vector holds.
template <typename T>
inline vec load(const T *from, int64_t n) { T room[LANES] = {}; std::memcpy(room, from, n * sizeof(T)); return load(room); }

template <typename T>
inline void store(T *to, vec v, int64_t n) { T room[LANES]; store(room, v); std::memcpy(to, room, n * sizeof(T)); }

template <typename Use>
inline void each_vector(int64_t n, Use use) {  // use(where it begins, how many numbers of it count)
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) use(i, (int64_t)LANES);
    if (i < n) use(i, n - i);
}

template <typename T>
inline vec load_some(const T *from, int64_t n) { return n == LANES ? load(from) : load(from, n); }

template <typename T>
inline void store_some(T *to, vec v, int64_t n) { n == LANES ? store(to, v) : store(to, v, n); }

inline int64_t padded(int64_t n) { return (n + LANES - 1) / LANES * LANES; }

// Small matrices: float32, rows padded to whole vectors ---------------------------------------------------------------

struct Matrix { float *data; int64_t rows, columns, stride; };

class Room {  // matrices of one head, in memory that stays between calls
    std::vector<float> floats;
    int64_t used = 0;
public:
    void reserve(int64_t n) { used = 0; if ((int64_t)floats.size() < n) floats.resize(n); }
    Matrix matrix(int64_t rows, int64_t columns) {
        Matrix made{floats.data() + used, rows, columns, padded(columns)};
        used += rows * made.stride;
        return made;
    }
};

template <typename T>
void read(const T *from, int64_t stride, float scale, Matrix to) {
    for (int64_t r = 0; r < to.rows; r++)
        each_vector(to.columns, [&](int64_t i, int64_t n) { store(to.data + r * to.stride + i, load_some(from + r * stride + i, n) * scale); });
}

template <typename T>
void write(Matrix from, T *to, int64_t stride) {
    for (int64_t r = 0; r < from.rows; r++)
        each_vector(from.columns, [&](int64_t i, int64_t n) { store_some(to + r * stride + i, load(from.data + r * from.stride + i), n); });
}

// Rows a and b, D apart, exchange what is not on the diagonal of 2 x 2 blocks of D x D numbers.
template <int D, int... J>
inline void exchange(vec &a, vec &b, std::integer_sequence<int, J...>) {
#if defined(__clang__)
    const vec upper = __builtin_shufflevector(a, b, (J & D ? LANES + J - D : J)...);
    b = __builtin_shufflevector(a, b, (J & D ? LANES + J : J + D)...);
#else
    const vec upper = __builtin_shuffle(a, b, ivec{(J & D ? LANES + J - D : J)...});
    b = __builtin_shuffle(a, b, ivec{(J & D ? LANES + J : J + D)...});
#endif
    a = upper;
}

template <int D>
inline void transpose_square(vec *rows) {  // of LANES x LANES numbers, by halves, quarters and so on
    for (int r = 0; r < LANES; r++)
        if (!(r & D)) exchange<D>(rows[r], rows[r + D], std::make_integer_sequence<int, LANES>{});
    if constexpr (D > 1) transpose_square<D / 2>(rows);
}

void transpose(Matrix from, Matrix to) {
    for (int64_t r = 0; r < from.rows; r += LANES)
        for (int64_t c = 0; c < from.columns; c += LANES) {
            vec rows[LANES];
            for (int i = 0; i < LANES; i++) rows[i] = r + i < from.rows ? load(from.data + (r + i) * from.stride + c) : vec{};
            transpose_square<LANES / 2>(rows);
            for (int i = 0; i < LANES && c + i < from.columns; i++) store(to.data + (c + i) * to.stride + r, rows[i]);
        }
}

// out = a b, where a's element (r, i) stands at a[r * row + i * inner]: so a may be a transposed matrix.
struct Left { const float *data; int64_t row, inner; };

template <int R, int V>
inline void block(Left a, Matrix b, float *out, int64_t stride) {
    vec sums[R][V] = {};
    for (int64_t i = 0; i < b.rows; i++)
        UNROLL
        for (int v = 0; v < V; v++) {
            const vec right = load(b.data + i * b.stride + v * LANES);
            UNROLL
            for (int r = 0; r < R; r++) sums[r][v] += a.data[r * a.row + i * a.inner] * right;
        }
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int v = 0; v < V; v++) store(out + r * stride + v * LANES, sums[r][v]);
}

template <int V>
inline void columns(Left a, Matrix b, Matrix out) {
    int64_t r = 0;
    auto take = [&](auto rows) {
        for (; r + rows() <= out.rows; r += rows())
            block<rows(), V>({a.data + r * a.row, a.row, a.inner}, b, out.data + r * out.stride, out.stride);
    };
    take(std::integral_constant<int, 6>{});
    take(std::integral_constant<int, 3>{});
    take(std::integral_constant<int, 1>{});
}

void multiply(Left a, Matrix b, Matrix out) {
    int64_t c = 0;
    auto right = [&] { return Matrix{b.data + c, b.rows, b.columns, b.stride}; };
    auto to = [&] { return Matrix{out.data + c, out.rows, out.columns, out.stride}; };
    for (; c + 2 * LANES <= out.stride; c += 2 * LANES) columns<2>(a, right(), to());
    for (; c < out.stride; c += LANES) columns<1>(a, right(), to());
}

inline Left as_it_is(Matrix m) { return {m.data, m.stride, 1}; }
inline Left transposed(Matrix m) { return {m.data, 1, m.stride}; }

// Attention -----------------------------------------------------------------------------------------------------------

// Turn numbers i and i + width / 2 of each row together: by the angle at its position, or back by it, with a sign of -1.
// turns: [positions][2][width], cosines and signed sines; null where nothing turns.
void turn(Matrix m, const float *turns, float sign) {
    if (!turns) return;
    const int64_t half = m.columns / 2;
    for (int64_t r = 0; r < m.rows; r++) {
        float *row = m.data + r * m.stride;
        const float *cosine = turns + r * 2 * m.columns, *sine = cosine + m.columns + half;
        each_vector(half, [&](int64_t i, int64_t n) {
            const vec a = load_some(row + i, n), b = load_some(row + half + i, n);
            const vec c = load_some(cosine + i, n), s = load_some(sine + i, n) * sign;
            store_some(row + i, a * c - b * s, n);
            store_some(row + half + i, b * c + a * s, n);
        });
    }
}

// What to add to scores: 0 where they may be attended to, minus infinity elsewhere and behind the last column; false if nothing may be.
bool look_up(const uint8_t *allowed, int64_t stride, int64_t n, float *hidden) {
    constexpr float NEVER = -std::numeric_limits<float>::infinity();
    bool any = false;
    for (int64_t i = 0; i < n; i++) {
        const bool may = !allowed || allowed[i * stride];
        hidden[i] = may ? 0 : NEVER;
        any |= may;
    }
    if (!any) std::memset(hidden, 0, n * sizeof(float));
    for (int64_t i = n; i % LANES; i++) hidden[i] = NEVER;
    return any;
}

// Softmax of x + hidden. What is hidden has no weight at all, so that it cannot change a single bit.
void softmax(float *x, const float *hidden, int64_t n) {
    vec m = vec{} - std::numeric_limits<float>::max(), s = {};
    for (int64_t i = 0; i < n; i += LANES) {
        const vec score = load(x + i) + load(hidden + i);
        m = maximum(m, score);
        store(x + i, score);
    }
    const float most = largest(m);
    for (int64_t i = 0; i < n; i += LANES) {
        vec e = exponential(load(x + i) - most);
        e = load(hidden + i) < 0 ? vec{} : e;
        store(x + i, e);
        s += e;
    }
    const float scale = 1.0f / sum(s);
    for (int64_t i = 0; i < n; i += LANES) store(x + i, load(x + i) * scale);
}

template <typename T>
T *of_head(const View &view, int64_t sentence, int64_t head) {
    return static_cast<T *>(view.data) + sentence * view.sentence + head * view.head;
}

template <typename Use>
void each_head(const Sizes &n, Use use) {  // use(sentence, head, whether this thread had another sentence before)
#pragma omp parallel
    {
        int64_t before = -1;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n.sentences * n.heads; i++) {
            const int64_t sentence = i / n.heads;
            use(sentence, i % n.heads, sentence != before);
            before = sentence;
        }
    }
}

int64_t room_for(const Sizes &n) {
    const int64_t k = padded(n.d_k), v = padded(n.d_v), l = padded(n.positions), m = padded(n.attended);
    return 4 * (l + m) * (k + v) + 2 * l * m + l * LANES;
}

template <typename T>
void attend(const Sizes &n, const View &query, const View &key, const View &value, const Mask &mask, float scale, const float *turns,
            float *weights, const View &out) {
    each_head(n, [&](int64_t s, int64_t h, bool new_sentence) {
        static thread_local Room room;
        room.reserve(room_for(n));
        Matrix hidden = room.matrix(mask.position ? n.positions : 1, n.attended), any = room.matrix(hidden.rows, 1);
        for (int64_t l = 0; new_sentence && l < hidden.rows; l++) {  // the same for all heads
            const uint8_t *allowed = mask.data ? mask.data + s * mask.sentence + l * mask.position : nullptr;
            any.data[l * any.stride] = look_up(allowed, mask.attended, n.attended, hidden.data + l * hidden.stride);
        }
        Matrix q = room.matrix(n.positions, n.d_k), k = room.matrix(n.attended, n.d_k), k_t = room.matrix(n.d_k, n.attended);
        Matrix v = room.matrix(n.attended, n.d_v), o = room.matrix(n.positions, n.d_v);
        Matrix w{weights + (s * n.heads + h) * n.positions * padded(n.attended), n.positions, n.attended, padded(n.attended)};
        read(of_head<T>(query, s, h), query.position, scale, q);
        read(of_head<T>(key, s, h), key.position, 1.0f, k);
        read(of_head<T>(value, s, h), value.position, 1.0f, v);
        turn(q, turns, 1);
        turn(k, turns, 1);
        transpose(k, k_t);
        multiply(as_it_is(q), k_t, w);
        for (int64_t l = 0; l < n.positions; l++) {
            const int64_t row = mask.position ? l : 0;
            if (!any.data[row * any.stride]) std::memset(w.data + l * w.stride, 0, w.stride * sizeof(float));  // uniform weights, never NaN
            softmax(w.data + l * w.stride, hidden.data + row * hidden.stride, w.stride);
        }
        multiply(as_it_is(w), v, o);
        write(o, of_head<T>(out, s, h), out.position);
    });
}

// With W the weights and G the gradient of what came out: dV = W'G, dS = W (GV' - rowsum(W GV')), dQ = scale dS K, dK = scale dS'Q.
template <typename T>
void attend_back(const Sizes &n, const View &query, const View &key, const View &value, const float *weights, float scale, const float *turns,
                 const View &gradient, const View &query_gradient, const View &key_gradient, const View &value_gradient) {
    each_head(n, [&](int64_t s, int64_t h, bool) {
        static thread_local Room room;
        room.reserve(room_for(n));
        Matrix q = room.matrix(n.positions, n.d_k), k = room.matrix(n.attended, n.d_k), v = room.matrix(n.attended, n.d_v), v_t = room.matrix(n.d_v, n.attended);
        Matrix g = room.matrix(n.positions, n.d_v), d_s = room.matrix(n.positions, n.attended);
        Matrix d_q = room.matrix(n.positions, n.d_k), d_k = room.matrix(n.attended, n.d_k), d_v = room.matrix(n.attended, n.d_v);
        Matrix w{const_cast<float *>(weights) + (s * n.heads + h) * n.positions * padded(n.attended), n.positions, n.attended, padded(n.attended)};
        read(of_head<T>(query, s, h), query.position, scale, q);
        read(of_head<T>(key, s, h), key.position, scale, k);
        read(of_head<T>(value, s, h), value.position, 1.0f, v);
        read(of_head<T>(gradient, s, h), gradient.position, 1.0f, g);
        turn(q, turns, 1);
        turn(k, turns, 1);
        multiply(transposed(w), g, d_v);
        write(d_v, of_head<T>(value_gradient, s, h), value_gradient.position);
        transpose(v, v_t);
        multiply(as_it_is(g), v_t, d_s);
        for (int64_t l = 0; l < n.positions; l++) {
            float *back = d_s.data + l * d_s.stride;
            const float *weight = w.data + l * w.stride;
            vec products = {};
            for (int64_t i = 0; i < w.stride; i += LANES) products += load(back + i) * load(weight + i);
            const float mean = sum(products);
            for (int64_t i = 0; i < w.stride; i += LANES) store(back + i, (load(back + i) - mean) * load(weight + i));
        }
        multiply(as_it_is(d_s), k, d_q);
        turn(d_q, turns, -1);
        write(d_q, of_head<T>(query_gradient, s, h), query_gradient.position);
        multiply(transposed(d_s), q, d_k);
        turn(d_k, turns, -1);
        write(d_k, of_head<T>(key_gradient, s, h), key_gradient.position);
    });
}

// Dropout -------------------------------------------------------------------------------------------------------------

constexpr int64_t DRAWN = 64;  // bytes, one for each number
typedef uint64_t wide_vec __attribute__((vector_size(DRAWN)));

// Sebastiano Vigna's SplitMix64 at positions 8 i to 8 i + 7 of the stream that `seed` begins.
inline wide_vec draw(uint64_t seed, uint64_t i) {
    wide_vec z = (8 * i + wide_vec{1, 2, 3, 4, 5, 6, 7, 8}) * 0x9e3779b97f4a7c15u + seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

template <typename T>
void drop(const T *x, const T *onto, int64_t size, uint64_t seed, int64_t threshold, T *out) {
    const float scale = 256.0f / (256 - threshold);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < (size + DRAWN - 1) / DRAWN; i++) {
        const wide_vec drawn = draw(seed, i);
        uint8_t bytes[DRAWN];
        std::memcpy(bytes, &drawn, DRAWN);
        float factors[DRAWN];
        for (int j = 0; j < DRAWN; j++) factors[j] = bytes[j] >= threshold ? scale : 0.0f;
        each_vector(size - i * DRAWN < DRAWN ? size - i * DRAWN : DRAWN, [&](int64_t j, int64_t n) {
            const int64_t at = i * DRAWN + j;
            vec kept = load_some(x + at, n) * load(factors + j);
            if (onto) kept += load_some(onto + at, n);
            store_some(out + at, kept, n);
        });
    }
}

// Layer normalization -------------------------------------------------------------------------------------------------

struct Statistics { float mean, scale; };  // of a row: scale is 1 / sqrt(variance + epsilon)

template <typename T>
void normalize_rows(const T *x, const T *weight, const T *bias, int64_t rows, int64_t width, float epsilon, Statistics *found, T *out) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        const T *row = x + r * width;
        vec total = {}, squares = {};
        each_vector(width, [&](int64_t i, int64_t n) { total += load_some(row + i, n); });
        const float mean = sum(total) / width;
        each_vector(width, [&](int64_t i, int64_t n) {
            vec apart = load_some(row + i, n) - mean;
            for (int64_t j = n; j < LANES; j++) apart[j] = 0;
            squares += apart * apart;
        });
        const float scale = 1 / std::sqrt(sum(squares) / width + epsilon);
        each_vector(width, [&](int64_t i, int64_t n) {
            store_some(out + r * width + i, (load_some(row + i, n) - mean) * scale * load_some(weight + i, n) + load_some(bias + i, n), n);
        });
        found[r] = {mean, scale};
    }
}

constexpr int64_t ROWS = 128;  // whose gradients of weight and bias are summed together: the same sums whatever the number of threads

// With z the normalized row and g the gradient of z: dx = scale (g - mean(g) - z mean(g z)).
template <typename T>
void normalize_rows_back(const T *x, const T *weight, const T *gradient, int64_t rows, int64_t width, const Statistics *found,
                         T *x_gradient, T *weight_gradient, T *bias_gradient) {
    const int64_t blocks = (rows + ROWS - 1) / ROWS, stride = padded(width);
    std::vector<float> sums(2 * blocks * stride);
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        float *to_weight = sums.data() + 2 * b * stride, *to_bias = to_weight + stride;
        for (int64_t r = b * ROWS; r < std::min(rows, (b + 1) * ROWS); r++) {
            const T *row = x + r * width, *back = gradient + r * width;
            const float mean = found[r].mean, scale = found[r].scale;
            vec gradients = {}, products = {};
            each_vector(width, [&](int64_t i, int64_t n) {
                const vec z = (load_some(row + i, n) - mean) * scale, g = load_some(back + i, n), to_z = g * load_some(weight + i, n);
                store(to_weight + i, load(to_weight + i) + g * z);
                store(to_bias + i, load(to_bias + i) + g);
                gradients += to_z;
                products += to_z * z;
            });
            const float mean_gradient = sum(gradients) / width, mean_product = sum(products) / width;
            each_vector(width, [&](int64_t i, int64_t n) {
                const vec z = (load_some(row + i, n) - mean) * scale, to_z = load_some(back + i, n) * load_some(weight + i, n);
                store_some(x_gradient + r * width + i, scale * (to_z - mean_gradient - z * mean_product), n);
            });
        }
    }
    for (int64_t b = 1; b < blocks; b++)
        for (int64_t i = 0; i < 2 * stride; i += LANES) store(sums.data() + i, load(sums.data() + i) + load(sums.data() + 2 * b * stride + i));
    each_vector(width, [&](int64_t i, int64_t n) {
        store_some(weight_gradient + i, load(sums.data() + i), n);
        store_some(bias_gradient + i, load(sums.data() + stride + i), n);
    });
}

// Loss ----------------------------------------------------------------------------------------------------------------

template <typename T>
void softmax_rows(T *x, int64_t rows, int64_t vocabulary) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        static thread_local std::vector<float> powers;
        if ((int64_t)powers.size() < padded(vocabulary)) powers.resize(padded(vocabulary));
        T *row = x + r * vocabulary;
        vec m = vec{} - std::numeric_limits<float>::infinity(), s = {};
        each_vector(vocabulary, [&](int64_t i, int64_t n) {
            if (n == LANES) m = maximum(m, load(row + i));
            else for (int64_t j = 0; j < n; j++) m[j] = maximum(m, load(row + i, n))[j];
        });
        const float most = largest(m);
        each_vector(vocabulary, [&](int64_t i, int64_t n) {
            vec e = exponential(load_some(row + i, n) - most);
            for (int64_t j = n; j < LANES; j++) e[j] = 0;
            store(powers.data() + i, e);
            s += e;
        });
        const float scale = 1.0f / sum(s);
        each_vector(vocabulary, [&](int64_t i, int64_t n) { store_some(row + i, load(powers.data() + i) * scale, n); });
    }
}

template <typename T>
void add(float *sum, const T *x, int64_t size) {
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < size; i += DRAWN)
        each_vector(size - i < DRAWN ? size - i : DRAWN, [&](int64_t j, int64_t n) { store_some(sum + i + j, load_some(sum + i + j, n) + load_some(x + i + j, n), n); });
}

}  // namespace

extern "C" {

// out = softmax(scale query key' where the mask allows) value, queries and keys turned by their position first, if `turns` is not null;
// the weights are kept for the way back, rows padded to whole vectors.
void attention(int64_t narrow, const Sizes *n, const View *query, const View *key, const View *value, const Mask *mask, float scale, const float *turns,
               float *weights, const View *out) {
    (narrow ? attend<bfloat16> : attend<float>)(*n, *query, *key, *value, *mask, scale, turns, weights, *out);
}

void attention_backward(int64_t narrow, const Sizes *n, const View *query, const View *key, const View *value, const float *weights, float scale,
                        const float *turns, const View *gradient, const View *query_gradient, const View *key_gradient, const View *value_gradient) {
    (narrow ? attend_back<bfloat16> : attend_back<float>)(*n, *query, *key, *value, weights, scale, turns, *gradient, *query_gradient, *key_gradient, *value_gradient);
}

// out = onto + x where a random byte is at least the threshold, scaled up by how seldom that is; onto may be null.
// The same seed drops the same numbers: so the way back needs no mask.
void dropout(int64_t narrow, const void *x, const void *onto, int64_t size, uint64_t seed, int64_t threshold, void *out) {
    if (narrow) drop(static_cast<const bfloat16 *>(x), static_cast<const bfloat16 *>(onto), size, seed, threshold, static_cast<bfloat16 *>(out));
    else drop(static_cast<const float *>(x), static_cast<const float *>(onto), size, seed, threshold, static_cast<float *>(out));
}

// out = (x - mean) / sqrt(variance + epsilon) weight + bias, in each row.
void layer_norm(int64_t narrow, const void *x, const void *weight, const void *bias, int64_t rows, int64_t width, float epsilon, Statistics *found, void *out) {
    auto run = [&](auto type) {
        using T = decltype(type);
        normalize_rows((const T *)x, (const T *)weight, (const T *)bias, rows, width, epsilon, found, (T *)out);
    };
    narrow ? run(bfloat16{}) : run(float{});
}

void layer_norm_backward(int64_t narrow, const void *x, const void *weight, const void *gradient, int64_t rows, int64_t width, const Statistics *found,
                         void *x_gradient, void *weight_gradient, void *bias_gradient) {
    auto run = [&](auto type) {
        using T = decltype(type);
        normalize_rows_back((const T *)x, (const T *)weight, (const T *)gradient, rows, width, found, (T *)x_gradient, (T *)weight_gradient, (T *)bias_gradient);
    };
    narrow ? run(bfloat16{}) : run(float{});
}

// Softmax of each row, in place.
void softmax_in_place(int64_t narrow, void *x, int64_t rows, int64_t vocabulary) {
    narrow ? softmax_rows(static_cast<bfloat16 *>(x), rows, vocabulary) : softmax_rows(static_cast<float *>(x), rows, vocabulary);
}

// sum += x, x being bfloat16.
void accumulate(float *sum, const void *x, int64_t size) { add(sum, static_cast<const bfloat16 *>(x), size); }

// out = x^T, x being float32.
void transposed(const float *x, int64_t rows, int64_t columns, float *out) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r += LANES) {
        const int64_t height = rows - r < LANES ? rows - r : LANES;
        each_vector(columns, [&](int64_t c, int64_t n) {
            vec square[LANES];
            for (int64_t i = 0; i < LANES; i++) square[i] = i < height ? load_some(x + (r + i) * columns + c, n) : vec{};
            transpose_square<LANES / 2>(square);
            for (int64_t i = 0; i < n; i++) store_some(out + (c + i) * rows + r, square[i], height);
        });
    }
}

int64_t lanes() { return LANES; }

}
