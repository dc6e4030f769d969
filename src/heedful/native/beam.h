// Beam search from the first token to the last, by the rules of decoding/search.py, over `step` and `logits` of search.cpp:
// one call for a whole batch, and no other thread has to wait for Python in between. Drawing, prefixes and forbidden
// repetitions are left to Python. Tests hold the two against each other.
#pragma once

#include <algorithm>
#include <memory>

struct Rules {
    const int64_t *forbidden;
    int64_t forbidden_count, beam, n_best, min_length, begin, end;
    double length_penalty, patience;
    float never;
};

namespace {

struct Output { std::vector<int64_t> ids; float total; double score; };

// Everything that is known of the hypotheses that are still searched; those of a sentence are neighbours, `width` of each.
struct Beams {
    int64_t width = 1;
    std::vector<int32_t> sentence;         // of each row
    std::vector<int64_t> token;            // the last token of each
    std::vector<float> live;               // its log-probability
    std::vector<int32_t> came;             // [rows][longest]: which row it was at each step
    std::vector<int64_t> ended;            // by sentence searched: how many have ended
    std::vector<double> to_beat;           // the score of the last of its best outputs so far
    int64_t sentences() const { return (int64_t)ended.size(); }
};

inline double penalty(int64_t length, double alpha) { return std::pow((5.0 + length) / 6.0, alpha); }

// Put an output among those of its sentence, behind those as good; return the score that others have to beat.
double finish(std::vector<Output> &outputs, Output output, const Rules &rules) {
    auto better = [](const Output &a, const Output &b) { return a.score > b.score; };
    outputs.insert(std::upper_bound(outputs.begin(), outputs.end(), output, better), std::move(output));
    if ((int64_t)outputs.size() > rules.beam) outputs.pop_back();
    const bool enough = (int64_t)outputs.size() >= rules.n_best;
    return enough ? outputs[rules.n_best - 1].score : -std::numeric_limits<double>::infinity();
}

// Forbid what the lengths forbid: an output ends at its limit, at the price of its end token, and not before it is long enough.
void keep_to_lengths(const Beams &beams, const Rules &rules, const int64_t *limits, int64_t length, float *logits, int64_t vocabulary) {
    for (size_t row = 0; row < beams.sentence.size(); row++, logits += vocabulary) {
        const float price = logits[rules.end];
        if (limits[beams.sentence[row]] == length) {
            std::fill(logits, logits + vocabulary, rules.never);
            logits[rules.end] = price;
        } else if (length <= rules.min_length) {
            logits[rules.end] = rules.never;
        }
    }
}

// Whether a sentence is searched further, by the best log-probability of what lives of it: `_retire` of decoding/search.py.
bool stays(const Rules &rules, int64_t length, int64_t limit, float best, int64_t ended, double to_beat) {
    if (length >= limit || best <= rules.never / 2) return false;
    if (best / penalty(limit, rules.length_penalty) <= to_beat) return false;
    return rules.patience <= 0 || ended < std::max(rules.patience * rules.beam, (double)rules.n_best);
}

}  // namespace

extern "C" {

// memory, offset: of the sentences, as `remember` made them. limits: longest output of each, `longest` the largest of them.
// positions: so many. ids: [sentences][beam][longest], lengths and totals: [sentences][beam], best first, length 0 where there is none.
// Returns 0 where there is not enough memory.
int64_t search(const Model *m, const Rules *r, const float *memory, const int32_t *offset, int64_t sentences, const int64_t *limits, int64_t longest,
            const float *positions, int64_t *ids, int64_t *lengths, float *totals) try {
    static thread_local Room hidden_room, logits_room, sums_room, total_room;
    const Model &model = *m;
    const Rules &rules = *r;
    const int64_t numbers = model.decoder_layers * model.heads * (model.d_k + model.d_v), vocabulary = model.logits.outputs;
    std::vector<std::vector<Output>> outputs(sentences);
    std::vector<std::unique_ptr<float[]>> kept;     // what each step adds to the past,
    std::vector<float *> past;                      // where that is,
    std::vector<int64_t> rows;                      // its rows,
    std::vector<std::vector<int64_t>> tokens;       // and the tokens that it read
    std::vector<int64_t> parents, chosen;
    Beams beams;
    for (int64_t s = 0; s < sentences; s++) beams.sentence.push_back((int32_t)s);
    beams.token.assign(sentences, rules.begin);
    beams.live.assign(sentences, 0.0f);
    beams.came.resize(sentences * longest);
    beams.ended.assign(sentences, 0);
    beams.to_beat.assign(sentences, -std::numeric_limits<double>::infinity());
    for (int64_t position = 0; beams.sentences(); position++) {
        const int64_t count = beams.sentences(), width = beams.width, n = count * width, length = position + 1;
        auto limit = [&](int64_t b) { return limits[beams.sentence[b * width]]; };
        kept.emplace_back(new float[n * numbers]);
        past.push_back(kept.back().get());
        rows.push_back(n);
        tokens.push_back(beams.token);
        for (int64_t row = 0; row < n; row++) beams.came[row * longest + position] = (int32_t)row;
        float *hidden = hidden_room(n * model.d_model), *out = logits_room(n * vocabulary), *sums = nullptr;
        take_step(m, beams.token.data(), n, position, past.data(), rows.data(), beams.came.data(), longest, beams.sentence.data(), offset, memory,
             offset[sentences], positions, hidden);
        logits(m, hidden, n, out);

        int64_t shortest = longest;
        for (int64_t b = 0; b < count; b++) shortest = std::min(shortest, limit(b));
        if (length <= rules.min_length || length >= shortest) {
            log_sum_exp(out, n, vocabulary, sums = sums_room(n));
            keep_to_lengths(beams, rules, limits, length, out, vocabulary);
        }
        const int64_t found = std::min(2 * rules.beam, width * vocabulary), next_width = std::min(rules.beam, found);
        float *total = total_room(count * found);
        parents.resize(count * found);
        chosen.resize(count * found);
        successors(out, beams.live.data(), sums, count, width, vocabulary, rules.forbidden, rules.forbidden_count, rules.never, found, total,
                   parents.data(), chosen.data());

        Beams next;
        next.width = next_width;
        for (int64_t b = 0; b < count; b++, total += found) {
            const int64_t *parent = parents.data() + b * found, *token = chosen.data() + b * found;
            const int32_t sentence = beams.sentence[b * width];
            std::vector<std::pair<int64_t, float>> living;  // place among those found, log-probability
            for (int64_t c = 0; c < found; c++) {
                if (token[c] != rules.end) {
                    if ((int64_t)living.size() < next_width) living.emplace_back(c, total[c]);
                } else if (c < rules.beam && total[c] > rules.never / 2) {
                    Output output{{}, total[c], total[c] / penalty(length, rules.length_penalty)};
                    const int32_t *came = beams.came.data() + (b * width + parent[c]) * longest;
                    for (int64_t t = 1; t <= position; t++) output.ids.push_back(tokens[t][came[t]]);
                    output.ids.push_back(rules.end);
                    beams.to_beat[b] = finish(outputs[sentence], std::move(output), rules);
                    beams.ended[b]++;
                }
            }
            for (int64_t c = 0; c < found && (int64_t)living.size() < next_width; c++)  // rows are kept even for what cannot go on
                if (token[c] == rules.end) living.emplace_back(c, 2 * rules.never);
            if (!stays(rules, length, limit(b), living[0].second, beams.ended[b], beams.to_beat[b])) continue;  // the first is the best
            for (auto [c, log_probability] : living) {
                const int32_t *came = beams.came.data() + (b * width + parent[c]) * longest;
                next.sentence.push_back(sentence);
                next.token.push_back(token[c]);
                next.live.push_back(log_probability);
                next.came.insert(next.came.end(), came, came + longest);
            }
            next.ended.push_back(beams.ended[b]);
            next.to_beat.push_back(beams.to_beat[b]);
        }
        beams = std::move(next);
    }
    std::fill(lengths, lengths + sentences * rules.beam, 0);
    for (int64_t s = 0; s < sentences; s++)
        for (size_t i = 0; i < outputs[s].size(); i++) {
            const int64_t place = s * rules.beam + i;
            lengths[place] = outputs[s][i].ids.size();
            totals[place] = outputs[s][i].total;
            std::copy(outputs[s][i].ids.begin(), outputs[s][i].ids.end(), ids + place * longest);
        }
    return 1;
} catch (const std::bad_alloc &) {
    return 0;
}

}
