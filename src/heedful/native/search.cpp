// The Transformer's search step and encoder for one thread of a processor, float32 activations throughout.
//
// heedful compiles this file when it first translates on a machine that has a C++ compiler, and calls it through
// ctypes (native/__init__.py); without a compiler, model/inference.py does the same with torch's operations. Here
// nothing is padded, masked, copied or reordered:
// - rows of all sentences stand one after another; `offset[s]` is where sentence s begins;
// - what a step adds to the past stays where it was written; `came[n][t]` tells which row hypothesis n was at step t;
// - a row's result depends on that row alone, sums in one order: so the batch does not change a translation.
//
// Weights come in panels of PANEL columns, [columns / PANEL][inputs][PANEL], zeros behind the last column; with
// bfloat16 weights two inputs stand side by side, [columns / PANEL][inputs / 2][PANEL][2]; with weights of 8 bits TOGETHER of
// them, four or two, and there is a scale for each column, and rows of activations are made as coarse on the way in.

#include "vectors.h"

constexpr int PANEL = LANES * VECTORS, ROWS = 6;  // ROWS x VECTORS sums fit into the registers

struct Norm { const float *weight, *bias; };
struct Product { const void *panels; const float *bias, *scales; const int32_t *offsets; int64_t inputs, outputs; };
enum Kind : int64_t { FLOAT32, BFLOAT16, INT8 };
struct Layer { Norm norms[3]; Product query, keys_values, output, cross_query, memory, cross_output, inner, outer; };
struct Model {
    const Layer *encoder, *decoder;
    Norm encoder_norm, decoder_norm;  // weight null: none
    Product logits;
    const float *source_table, *target_table;
    int64_t encoder_layers, decoder_layers, d_model, heads, d_k, d_v, d_ff, pre, rotary, kind;
    float source_scale, target_scale, epsilon;
};

namespace {

float dot(const float *a, const float *b, int64_t n) {
    vec s = {};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) s += load(a + i) * load(b + i);
    float total = sum(s);
    for (; i < n; i++) total += a[i] * b[i];
    return total;
}

void softmax(float *x, int64_t n) {  // with room for a whole vector behind x[n - 1]
    for (int64_t i = n; i % LANES; i++) x[i] = -std::numeric_limits<float>::max();  // e^that is next to nothing
    vec m = load(x);
    for (int64_t i = LANES; i < n; i += LANES) m = maximum(m, load(x + i));
    float most = largest(m);
    vec s = {};
    for (int64_t i = 0; i < n; i += LANES) {
        vec e = exponential(load(x + i) - most);
        store(x + i, e);
        s += e;
    }
    const vec scale = vec{} + 1.0f / sum(s);
    for (int64_t i = 0; i < n; i += LANES) store(x + i, load(x + i) * scale);
}

struct Room {  // memory that stays between calls
    std::vector<float> floats;
    float *operator()(int64_t n) { if ((int64_t)floats.size() < n) floats.resize(n); return floats.data(); }
};

// Products ------------------------------------------------------------------------------------------------------------

struct Target { float *out; int64_t stride; const float *onto; int64_t onto_stride; bool relu; const float *row_scale; };

inline void finish(const float *sums, int64_t row, int64_t column, int64_t columns, const Product &product, const Target &t) {
    float *out = t.out + row * t.stride + column;
    const float *bias = product.bias ? product.bias + column : nullptr;
    const float *onto = t.onto ? t.onto + row * t.onto_stride + column : nullptr;
    if (columns >= PANEL) {
        for (int v = 0; v < VECTORS; v++) {
            vec s = load(sums + v * LANES);
            if (bias) s += load(bias + v * LANES);
            if (onto) s += load(onto + v * LANES);
            if (t.relu) s = s < 0 ? vec{} : s;  // what is not a number stays so
            store(out + v * LANES, s);
        }
        return;
    }
    for (int c = 0; c < columns; c++) {
        float s = sums[c] + (bias ? bias[c] : 0.0f) + (onto ? onto[c] : 0.0f);
        out[c] = t.relu && s < 0 ? 0.0f : s;
    }
}

// The sums of R rows come by way of memory, where the last columns can be taken one by one.
template <int R>
inline void finish_rows(const float *sums, int64_t row, int64_t column, const Product &product, const Target &t) {
    for (int r = 0; r < R; r++) finish(sums + r * PANEL, row + r, column, product.outputs - column, product, t);
}

template <int R>
inline void rows_by_panel(const float *x, int64_t inputs, const float *panel, int64_t row, int64_t column, const Product &product, const Target &t) {
    vec sums[R][VECTORS] = {};
    for (int64_t i = 0; i < inputs; i++) {
        vec weight[VECTORS];
        UNROLL
        for (int v = 0; v < VECTORS; v++) weight[v] = load(panel + i * PANEL + v * LANES);
        UNROLL
        for (int r = 0; r < R; r++)
            UNROLL
            for (int v = 0; v < VECTORS; v++) sums[r][v] += x[r * inputs + i] * weight[v];
    }
    float made[R * PANEL];
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int v = 0; v < VECTORS; v++) store(made + r * PANEL + v * LANES, sums[r][v]);
    finish_rows<R>(made, row, column, product, t);
}

#if defined(__AVX512BF16__)
template <int R>
inline void rows_by_panel(const uint32_t *pairs, int64_t count, const uint32_t *panel, int64_t row, int64_t column, const Product &product, const Target &t) {
    vec sums[R][VECTORS] = {};
    for (int64_t i = 0; i < count; i++) {
        ivec weight[VECTORS];
        UNROLL
        for (int v = 0; v < VECTORS; v++) weight[v] = load_whole(panel + i * PANEL + v * LANES);
        UNROLL
        for (int r = 0; r < R; r++) {
            const __m512bh x = (__m512bh)_mm512_set1_epi32(pairs[r * count + i]);
            UNROLL
            for (int v = 0; v < VECTORS; v++) sums[r][v] = (vec)_mm512_dpbf16_ps((__m512)sums[r][v], x, (__m512bh)weight[v]);
        }
    }
    float made[R * PANEL];
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int v = 0; v < VECTORS; v++) store(made + r * PANEL + v * LANES, sums[r][v]);
    finish_rows<R>(made, row, column, product, t);
}

const uint32_t *to_pairs(const float *x, int64_t n, int64_t inputs) {
    static thread_local std::vector<uint32_t> room;
    const int64_t count = (inputs + 1) / 2;
    if ((int64_t)room.size() < n * count + LANES) room.resize(n * count + LANES);
    for (int64_t row = 0; row < n; row++) {
        const float *from = x + row * inputs;
        uint16_t *to = reinterpret_cast<uint16_t *>(room.data() + row * count);
        for (int64_t i = 0; i < inputs; i += 16) {
            const __mmask16 here = inputs - i >= 16 ? 0xffff : (1u << (inputs - i)) - 1;
            __m256bh narrow = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(here, from + i));
            const int64_t kept = inputs - i >= 16 ? 32 : 4 * ((inputs - i + 1) / 2);
            std::memcpy(to + i, &narrow, kept);
        }
    }
    return room.data();
}
#endif

// Products of 8-bit weights, exact, by rows that are made whole numbers in 1/127 of their largest. TOGETHER inputs of a row are one Few, and as
// many weights of each column stand side by side. Without a product of four bytes, two are widened to 16 bits: pairs of bytes would be
// added in 16 bits, which cannot hold two products.
#if defined(__AVX512VNNI__) || (defined(__AVXVNNI__) && !defined(__AVX512F__))
#define TOGETHER 4
typedef uint8_t Whole;  // 128 is added, since the processor wants no sign; `offsets` takes it away again
#elif defined(__AVX512BW__) || (defined(__AVX2__) && !defined(__AVX512F__))
#define TOGETHER 2
typedef int16_t Whole;
#else
#define TOGETHER 0  // no such products
#endif

#if TOGETHER
struct Few { Whole of[TOGETHER]; };
struct Weights { int8_t of[TOGETHER]; };
#if TOGETHER == 4
inline ivec load_weights(const Weights *from) { return load_whole(from); }
#if defined(__AVX512VNNI__)
inline ivec add_products(ivec sums, ivec row, ivec weights) { return (ivec)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)row, (__m512i)weights); }
#else
inline ivec add_products(ivec sums, ivec row, ivec weights) { return (ivec)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)row, (__m256i)weights); }
#endif
#elif defined(__AVX512BW__)
inline ivec load_weights(const Weights *from) { return (ivec)_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(from))); }
inline ivec add_products(ivec sums, ivec row, ivec weights) { return sums + (ivec)_mm512_madd_epi16((__m512i)row, (__m512i)weights); }
#else
inline ivec load_weights(const Weights *from) { return (ivec)_mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from))); }
inline ivec add_products(ivec sums, ivec row, ivec weights) { return sums + (ivec)_mm256_madd_epi16((__m256i)row, (__m256i)weights); }
#endif

template <int R>
inline void rows_by_panel(const Few *x, int64_t count, const Weights *panel, int64_t row, int64_t column, const Product &product, const Target &t) {
    ivec sums[R][VECTORS] = {};  // of this type, not Intel's: arrays of that one the compiler keeps in memory
    for (int64_t i = 0; i < count; i++) {
        ivec weight[VECTORS];
        UNROLL
        for (int v = 0; v < VECTORS; v++) weight[v] = load_weights(panel + i * PANEL + v * LANES);
        UNROLL
        for (int r = 0; r < R; r++) {
            int32_t few;
            std::memcpy(&few, x + r * count + i, 4);
            const ivec same = ivec{} + few;
            UNROLL
            for (int v = 0; v < VECTORS; v++) sums[r][v] = add_products(sums[r][v], same, weight[v]);
        }
    }
    float made[R * PANEL];
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int v = 0; v < VECTORS; v++) store(made + r * PANEL + v * LANES, (vec)sums[r][v]);
    UNROLL
    for (int r = 0; r < R; r++)
        UNROLL
        for (int v = 0; v < VECTORS; v++) {
            float *sum = made + r * PANEL + v * LANES;
            const int64_t at = column + v * LANES;
            const vec whole = __builtin_convertvector((ivec)load(sum) + (TOGETHER == 4 ? load_whole(product.offsets + at) : ivec{}), vec);
            store(sum, whole * (load(product.scales + at) * t.row_scale[row + r]));
        }
    finish_rows<R>(made, row, column, product, t);
}

// Make rows whole numbers, the nearest ones, halves the even ones, and keep each row's scale.
const Few *to_whole(const float *x, int64_t n, int64_t inputs, std::vector<float> &scales) {
    static thread_local std::vector<Few> room;
    const int64_t count = (inputs + TOGETHER - 1) / TOGETHER;
    if ((int64_t)room.size() < n * count + LANES) room.resize(n * count + LANES);
    if ((int64_t)scales.size() < n) scales.resize(n);
    const float ROUND = 12582912.0f;  // 3 x 2^22: what is added to it loses its fraction
    typedef Whole wholes __attribute__((vector_size(sizeof(Whole) * LANES)));
    for (int64_t row = 0; row < n; row++) {
        const float *from = x + row * inputs;
        auto part = [&](int64_t i) {
            vec v = {};
            std::memcpy(&v, from + i, 4 * (inputs - i));
            return v;
        };
        const int64_t last = inputs - inputs % LANES;
        vec most = part(last);
        most = maximum(most, -most);
        for (int64_t i = 0; i < last; i += LANES) most = maximum(most, maximum(load(from + i), -load(from + i)));
        const float furthest = largest(most);
        scales[row] = furthest / 127.0f;
        const float steps = furthest > 0 ? 127.0f / furthest : 0.0f;
        auto nearest = [&](vec v) {
            const ivec whole = (ivec)(v * steps + ROUND) - (ivec)(vec{} + ROUND) + (TOGETHER == 4 ? 128 : 0);
            return __builtin_convertvector(whole, wholes);
        };
        Whole *to = room[row * count].of;
        for (int64_t i = 0; i < last; i += LANES) {
            const wholes made = nearest(load(from + i));
            std::memcpy(to + i, &made, sizeof made);
        }
        const wholes made = nearest(part(last));
        std::memcpy(to + last, &made, sizeof(Few) * (count - last / TOGETHER));
    }
    return room.data();
}
#endif

template <typename X, typename W>
void by_rows(const X *x, int64_t n, int64_t inputs, const W *panels, const Product &product, const Target &t) {
    for (int64_t column = 0; column < product.outputs; column += PANEL) {
        const W *panel = panels + column * inputs;
        int64_t row = 0;
        for (; row + ROWS <= n; row += ROWS) rows_by_panel<ROWS>(x + row * inputs, inputs, panel, row, column, product, t);
        const X *rest = x + row * inputs;
        switch (n - row) {
            case 5: rows_by_panel<5>(rest, inputs, panel, row, column, product, t); break;
            case 4: rows_by_panel<4>(rest, inputs, panel, row, column, product, t); break;
            case 3: rows_by_panel<3>(rest, inputs, panel, row, column, product, t); break;
            case 2: rows_by_panel<2>(rest, inputs, panel, row, column, product, t); break;
            case 1: rows_by_panel<1>(rest, inputs, panel, row, column, product, t); break;
        }
    }
}

// out = x W + bias + onto
void multiply(const Model &model, const float *x, int64_t n, const Product &product, Target t) {
#if defined(__AVX512BF16__)
    if (model.kind == BFLOAT16) {
        const uint32_t *panels = static_cast<const uint32_t *>(product.panels);
        return by_rows(to_pairs(x, n, product.inputs), n, (product.inputs + 1) / 2, panels, product, t);
    }
#endif
#if TOGETHER
    if (model.kind == INT8) {
        static thread_local std::vector<float> scales;
        const Few *whole = to_whole(x, n, product.inputs, scales);
        t.row_scale = scales.data();
        return by_rows(whole, n, (product.inputs + TOGETHER - 1) / TOGETHER, static_cast<const Weights *>(product.panels), product, t);
    }
#endif
    by_rows(x, n, product.inputs, static_cast<const float *>(product.panels), product, t);
}

void multiply(const Model &model, const float *x, int64_t n, const Product &product, float *out, const float *onto = nullptr, bool relu = false) {
    multiply(model, x, n, product, Target{out, product.outputs, onto, product.outputs, relu, nullptr});
}

// Layers --------------------------------------------------------------------------------------------------------------

void normalise(const Model &model, const Norm &norm, const float *x, float *out, int64_t n) {
    const int64_t d = model.d_model;
    for (int64_t row = 0; row < n; row++) {
        const float *from = x + row * d;
        float *to = out + row * d;
        vec s = {};
        int64_t i = 0;
        for (; i + LANES <= d; i += LANES) s += load(from + i);
        float mean = sum(s);
        for (; i < d; i++) mean += from[i];
        mean /= d;
        vec squares = {};
        for (i = 0; i + LANES <= d; i += LANES) { vec c = load(from + i) - mean; squares += c * c; }
        float variance = sum(squares);
        for (; i < d; i++) variance += (from[i] - mean) * (from[i] - mean);
        const float scale = 1.0f / std::sqrt(variance / d + model.epsilon);
        for (i = 0; i + LANES <= d; i += LANES)
            store(to + i, (load(from + i) - mean) * scale * load(norm.weight + i) + load(norm.bias + i));
        for (; i < d; i++) to[i] = (from[i] - mean) * scale * norm.weight[i] + norm.bias[i];
    }
}

// x = x + sublayer(norm(x)), or norm(x + sublayer(x)); the sublayer takes (its input, where x is and the sum goes)
template <typename Sublayer>
void connect(const Model &model, const Norm &norm, float *x, int64_t n, Sublayer sublayer) {
    static thread_local Room room;
    if (model.pre) {
        float *normal = room(n * model.d_model);
        normalise(model, norm, x, normal, n);
        sublayer(normal, x);
    } else {
        sublayer(x, x);
        normalise(model, norm, x, x, n);
    }
}

void feed_forward(const Model &model, const Layer &layer, const float *in, float *x, int64_t n) {
    static thread_local Room room;
    float *inner = room(n * model.d_ff);
    multiply(model, in, n, layer.inner, inner, nullptr, true);
    multiply(model, inner, n, layer.outer, x, x);
}

// to = sum over t of weight[t] x (what stands at row[t] + skip), in V vectors that stay in registers
template <int V>
inline void mix(const float *weight, int64_t count, const float *const *row, int64_t skip, float *to) {
    vec sums[V] = {};
    for (int64_t t = 0; t < count; t++)
        for (int v = 0; v < V; v++) sums[v] += load(row[t] + skip + v * LANES) * weight[t];
    for (int v = 0; v < V; v++) store(to + v * LANES, load(to + v * LANES) + sums[v]);
}

// One query of every head over `count` rows of keys and values, [heads][d_k + d_v]. Rows are read as a whole, since they lie
// far from each other: keys one row after another, values by as many rows as stay in the cache while the heads take turns.
void attend(const Model &model, const float *query, const float *const *row, int64_t count, float *out) {
    static thread_local Room room;
    constexpr int64_t BLOCK = 32, LONG = 64, AHEAD = 8, LINE = 16;  // rows, but LINE: floats of a line of the cache
    const int64_t width = model.d_k + model.d_v, d_v = model.d_v, stride = count + LANES;
    float *score = room(model.heads * stride);
    // Of a long text the rows lie in memory, not in the cache, and too far apart for the processor to foresee the next.
    const int64_t foreseen = count < LONG ? 0 : count - AHEAD;
    for (int64_t t = 0; t < count; t++) {
        if (t < foreseen)
            for (int64_t i = 0; i < model.heads * width; i += LINE) __builtin_prefetch(row[t + AHEAD] + i);
        for (int64_t h = 0; h < model.heads; h++) score[h * stride + t] = dot(query + h * model.d_k, row[t] + h * width, model.d_k);
    }
    for (int64_t h = 0; h < model.heads; h++) softmax(score + h * stride, count);
    std::memset(out, 0, model.heads * d_v * sizeof(float));
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t rows = count - first < BLOCK ? count - first : BLOCK;
        const float *const *from = row + first;
        for (int64_t h = 0; h < model.heads; h++) {
            const float *weight = score + h * stride + first;
            const int64_t skip = h * width + model.d_k;
            float *to = out + h * d_v;
            int64_t i = 0;
            for (; i + 4 * LANES <= d_v; i += 4 * LANES) mix<4>(weight, rows, from, skip + i, to + i);
            for (; i + 2 * LANES <= d_v; i += 2 * LANES) mix<2>(weight, rows, from, skip + i, to + i);
            for (; i + LANES <= d_v; i += LANES) mix<1>(weight, rows, from, skip + i, to + i);
            for (; i < d_v; i++)
                for (int64_t t = 0; t < rows; t++) to[i] += from[t][skip + i] * weight[t];
        }
    }
}

// Where `count` rows stand that follow one another.
const float *const *rows_of(const float *from, int64_t first, int64_t count, int64_t width) {
    static thread_local std::vector<const float *> row;
    if ((int64_t)row.size() < count) row.resize(count);
    for (int64_t t = 0; t < count; t++) row[t] = from + (first + t) * width;
    return row.data();
}

// What a position has: [d_model] to add to an embedding; with rotary also the cosines and the sines, [d_k] each, by which queries
// and keys turn.
struct Positions {
    const Model &model;
    const float *first;
    const float *operator[](int64_t position) const { return first + position * (model.d_model + (model.rotary ? 2 * model.d_k : 0)); }

    // Turn each head of a row of queries or of keys and values, `width` numbers a head, as model/transformer.py does.
    void turn(int64_t position, float *row, int64_t width) const {
        if (!model.rotary) return;
        const float *cosine = (*this)[position] + model.d_model, *sine = cosine + model.d_k;
        const int64_t half = model.d_k / 2;
        for (int64_t h = 0; h < model.heads; h++, row += width)
            for (int64_t i = 0; i < half; i++) {
                const float a = row[i], b = row[half + i];
                row[i] = a * cosine[i] + b * sine[i];
                row[half + i] = b * cosine[half + i] + a * sine[half + i];
            }
    }
};

void embed(const float *table, float scale, const Positions &positions, const int64_t *token, const int32_t *position, int64_t n, float *x) {
    const int64_t d = positions.model.d_model;
    for (int64_t row = 0; row < n; row++)
        for (int64_t i = 0; i < d; i++) x[row * d + i] = table[token[row] * d + i] * scale + positions[position[row]][i];
}

}  // namespace

extern "C" {

int64_t panel() { return PANEL; }

// How many inputs' weights stand side by side in products of this kind; 0: there are no such products here.
int64_t together(int64_t kind) {
#if defined(__AVX512BF16__)
    if (kind == BFLOAT16) return 2;
#endif
    if (kind == INT8) return TOGETHER;
    return kind == FLOAT32;
}

// Encode `sentences` texts whose tokens stand one after another; out: [tokens, d_model]. Returns 0 where there is not enough memory.
int64_t encode(const Model *m, const int64_t *token, const int32_t *position, const int32_t *offset, int64_t sentences, const float *positions, float *x) try {
    static thread_local Room query_room, keys_room, heads_room;
    const Model &model = *m;
    const int64_t n = offset[sentences], queries = model.heads * model.d_k, values = model.heads * model.d_v, keys_width = queries + values;
    float *query = query_room(n * queries), *keys = keys_room(n * keys_width), *heads = heads_room(n * values);
    const Positions places{model, positions};
    embed(model.source_table, model.source_scale, places, token, position, n, x);
    for (int64_t l = 0; l < model.encoder_layers; l++) {
        const Layer &layer = model.encoder[l];
        connect(model, layer.norms[0], x, n, [&](const float *in, float *x) {
            multiply(model, in, n, layer.query, query);
            multiply(model, in, n, layer.keys_values, keys);
            for (int64_t row = 0; row < n; row++) {
                places.turn(position[row], query + row * queries, model.d_k);
                places.turn(position[row], keys + row * keys_width, model.d_k + model.d_v);
            }
            for (int64_t s = 0; s < sentences; s++) {
                const int64_t count = offset[s + 1] - offset[s];
                const float *const *all = rows_of(keys, offset[s], count, keys_width);
                for (int64_t row = offset[s]; row < offset[s + 1]; row++)
                    attend(model, query + row * queries, all, count, heads + row * values);
            }
            multiply(model, heads, n, layer.output, x, x);
        });
        connect(model, layer.norms[1], x, n, [&](const float *in, float *x) { feed_forward(model, layer, in, x, n); });
    }
    if (model.encoder_norm.weight) normalise(model, model.encoder_norm, x, x, n);
    return 1;
} catch (const std::bad_alloc &) {
    return 0;
}

// Keys and values of the memory for each decoder layer: [decoder_layers][n][heads][d_k + d_v].
void remember(const Model *m, const float *states, int64_t n, float *memory) {
    const int64_t size = n * m->heads * (m->d_k + m->d_v);
    for (int64_t l = 0; l < m->decoder_layers; l++) multiply(*m, states, n, m->decoder[l].memory, memory + l * size);
}

// One token more for each of n hypotheses. past[t]: what step t wrote, [decoder_layers][rows[t]][heads][d_k + d_v]; the last
// one, t = position, is written here. came: [n][came_stride], the row of each hypothesis at each earlier step.
static void take_step(const Model *m, const int64_t *token, int64_t n, int64_t position, float *const *past, const int64_t *rows, const int32_t *came,
          int64_t came_stride, const int32_t *sentence, const int32_t *offset, const float *memory, int64_t memory_rows, const float *positions, float *x) {
    static thread_local Room query_room, heads_room;
    const Model &model = *m;
    const int64_t queries = model.heads * model.d_k, values = model.heads * model.d_v, keys_width = queries + values;
    float *query = query_room(n * queries), *heads = heads_room(n * values);
    std::vector<const float *> own(position + 1);
    const std::vector<int32_t> here(n, (int32_t)position);
    const Positions places{model, positions};
    embed(model.target_table, model.target_scale, places, token, here.data(), n, x);
    for (int64_t l = 0; l < model.decoder_layers; l++) {
        const Layer &layer = model.decoder[l];
        connect(model, layer.norms[0], x, n, [&](const float *in, float *x) {
            float *now = past[position] + l * n * keys_width;
            multiply(model, in, n, layer.query, query);
            multiply(model, in, n, layer.keys_values, now);
            for (int64_t row = 0; row < n; row++) {
                for (int64_t t = 0; t < position; t++) own[t] = past[t] + (l * rows[t] + came[row * came_stride + t]) * keys_width;
                own[position] = now + row * keys_width;
                places.turn(position, query + row * queries, model.d_k);
                places.turn(position, now + row * keys_width, model.d_k + model.d_v);
                attend(model, query + row * queries, own.data(), position + 1, heads + row * values);
            }
            multiply(model, heads, n, layer.output, x, x);
        });
        connect(model, layer.norms[1], x, n, [&](const float *in, float *x) {
            multiply(model, in, n, layer.cross_query, query);
            for (int64_t row = 0; row < n; row++) {
                const int64_t first = offset[sentence[row]], count = offset[sentence[row] + 1] - first;
                const float *const *all = rows_of(memory, l * memory_rows + first, count, keys_width);
                attend(model, query + row * queries, all, count, heads + row * values);
            }
            multiply(model, heads, n, layer.cross_output, x, x);
        });
        connect(model, layer.norms[2], x, n, [&](const float *in, float *x) { feed_forward(model, layer, in, x, n); });
    }
    if (model.decoder_norm.weight) normalise(model, model.decoder_norm, x, x, n);
}

// The same; returns 0 where there is not enough memory.
int64_t step(const Model *m, const int64_t *token, int64_t n, int64_t position, float *const *past, const int64_t *rows, const int32_t *came,
             int64_t came_stride, const int32_t *sentence, const int32_t *offset, const float *memory, int64_t memory_rows, const float *positions, float *x) try {
    take_step(m, token, n, position, past, rows, came, came_stride, sentence, offset, memory, memory_rows, positions, x);
    return 1;
} catch (const std::bad_alloc &) {
    return 0;
}

void logits(const Model *m, const float *hidden, int64_t n, float *out) { multiply(*m, hidden, n, m->logits, out); }

// log(sum(exp(x))) of each row [n, vocabulary].
void log_sum_exp(const float *x, int64_t n, int64_t vocabulary, float *out) {
    for (int64_t row = 0; row < n; row++, x += vocabulary) {
        const vec least = vec{} - std::numeric_limits<float>::max();
        vec m[4] = {least, least, least, least}, s = {};  // four, so that none waits for the one before it
        int64_t i = 0;
        for (; i + 4 * LANES <= vocabulary; i += 4 * LANES)
            for (int v = 0; v < 4; v++) m[v] = maximum(m[v], load(x + i + v * LANES));
        for (; i + LANES <= vocabulary; i += LANES) m[0] = maximum(m[0], load(x + i));
        float most = largest(maximum(maximum(m[0], m[1]), maximum(m[2], m[3]))), total = 0;
        for (int64_t j = i; j < vocabulary; j++) most = x[j] > most ? x[j] : most;
        for (int64_t j = 0; j < i; j += LANES) s += exponential(load(x + j) - most);
        for (; i < vocabulary; i++) total += std::exp(x[i] - most);
        out[row] = most + std::log(total + sum(s));
    }
}

// The best `count` successors of each sentence's hypotheses, best first: log-probability of hypothesis and token together,
// the hypothesis, the token. x: [sentences][width][vocabulary] logits, in which `never` is written over forbidden tokens;
// live: log-probabilities of the hypotheses; log_sums: log(sum(exp(x))) of each, or null.
void successors(float *x, const float *live, const float *log_sums, int64_t sentences, int64_t width, int64_t vocabulary, const int64_t *forbidden,
                int64_t forbidden_count, float never, int64_t count, float *totals, int64_t *parents, int64_t *chosen) {
    for (int64_t s = 0; s < sentences; s++, totals += count, parents += count, chosen += count) {
        for (int64_t c = 0; c < count; c++) { totals[c] = -std::numeric_limits<float>::infinity(); parents[c] = chosen[c] = 0; }
        for (int64_t w = 0; w < width; w++, x += vocabulary) {
            float log_sum;
            if (log_sums) log_sum = log_sums[s * width + w];
            else log_sum_exp(x, 1, vocabulary, &log_sum);
            for (int64_t f = 0; f < forbidden_count; f++) x[forbidden[f]] = never;
            const float more = live[s * width + w] - log_sum;
            auto offer = [&](int64_t v) {
                const float total = x[v] + more;
                if (!(total > totals[count - 1])) return;
                int64_t c = count - 1;
                for (; c > 0 && total > totals[c - 1]; c--) { totals[c] = totals[c - 1]; parents[c] = parents[c - 1]; chosen[c] = chosen[c - 1]; }
                totals[c] = total;
                parents[c] = w;
                chosen[c] = v;
            };
            int64_t v = 0;
            for (; v + 4 * LANES <= vocabulary; v += 4 * LANES) {
                vec m = maximum(maximum(load(x + v), load(x + v + LANES)), maximum(load(x + v + 2 * LANES), load(x + v + 3 * LANES)));
                if (largest(m) + more > totals[count - 1]) for (int64_t j = v; j < v + 4 * LANES; j++) offer(j);
            }
            for (; v < vocabulary; v++) offer(v);
        }
    }
}

}

#include "beam.h"
