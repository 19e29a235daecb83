"""The pages of conv_vs_fft and conv_extents."""
from tables import columns, digits, integer, milliseconds, span

CONV = """Command: `conv_vs_fft`. A stack has K taps, dilations that are powers of f, D levels. The contenders of a row
are called in turn; a cell has their milliseconds and their ratio to the stack. *FFT*: MEGA's EMA as frameworks compute
it, a convolution by FFTs of length 2L in fp32 (FFTW with measured plans, or cuFFT) with the transform of its kernel,
which is given; *generated*: the kernel is also built from the EMA's parameters, as every training step must.
*torch.fft*: the same in PyTorch, kernel given. *Scan*: this library's EMA, which does less work: 16 states per channel
against 24 to 153 taps. *oneDNN*, *conv1d*: the stack level by level, by oneDNN and by PyTorch. All have the same
threads. *% of limit*: of the FMA peak or the copy bandwidth of the same run and number of threads, whichever binds;
only multiply-adds inside the sequence count, forward one per tap, backward three."""

EXTENTS = """Command: `conv_extents`, fp32. *% of limit*: of the FMA peak or the copy bandwidth of the same run,
whichever binds."""
EXTENTS_TOKENS = """Forward with the state in place, batch {batch}, {channels} channels: nanoseconds per token and
channel."""
EXTENTS_SHORT = """Many short sequences, {channels} channels. *Overhead*: the time beyond that of the arithmetic,
relative to it. The arithmetic is the multiply-adds of the sequences at the time that one takes in one long row of as
many positions, in the levels of which the sequences have more than the newest tap."""


def stack(row):
    return f"{row['taps']} {row['dilation_base']} {row['depth']}"


def share(row, prefix=""):
    return f"{integer(row.get(prefix + 'percent_of_limit'))} {row.get(prefix + 'limit') or ''}".rstrip()


def contender(key):
    """Milliseconds of a contender, and its ratio to the stack."""
    def cell(r):
        ms = r.get(key)
        return "-" if ms is None else f"{milliseconds(ms)} ({digits(ms / r['conv_ms'], 'x')})"
    return cell


def of_one_thread(r):
    ms = r.get("one_thread_ms")
    return "-" if ms is None else f"{digits(ms / r['conv_ms'], 'x')} ({share(r, 'one_thread_')})"


def equal_field(run, direction):
    """The fastest stack that sees all of the longest sequence, as the FFT does."""
    longest = max(r["length"] for r in run.rows)
    own = [r for r in run.rows if r["direction"] == direction and r["dtype"] == "fp32" and r["length"] == longest and
           r["receptive_field"] >= longest]
    return min(own, key=lambda r: r["conv_ms"], default=None)


def conv_page(run):
    first = run.rows[0]
    rates = [f"{n} thread{'s' * (n > 1)}: FMA peak {integer(r[p + 'fma_gflops'])} GFLOP/s, copy "
             f"{integer(r[p + 'copy_gbytes_per_s'])} GB/s at length {r['length']}"
             for r in (first, run.rows[-1]) for p, n in (("", first["threads"]), ("one_thread_", 1))
             if r.get(p + "fma_gflops")]
    text = [f"Batch {first['batch']}, channels {first['channels']}. {'; '.join(dict.fromkeys(rates))}." +
            (f" Opponents: {run.data['opponents']}." if "opponents" in run.data else ""), CONV]
    lines = []
    for direction in ("forward", "backward"):
        best = equal_field(run, direction)
        if best:
            lines.append(f"- {direction.capitalize()} at length {best['length']}, at equal receptive fields (the "
                         f"fastest stack that sees all of the sequence, {stack(best)}): "
                         f"{digits(best['speedup_given'], 'x')} over the FFT with a given kernel.")
        groups = {}
        for r in run.rows:
            if r["direction"] == direction and r["speedup_given"] is not None:
                groups.setdefault(stack(r), []).append(r["speedup_given"])
        if groups:
            lines.append(f"- {direction.capitalize()} at all lengths, over the FFT with a given kernel: " +
                         "; ".join(f"{span(v)} ({name})" for name, v in groups.items()) + ".")
    text.append("\n".join(lines))
    levels = "oneDNN" if first["backend"] == "cpu" else "levels"
    text.append(columns(run.rows, [
        ("", lambda r: r["direction"]), ("type", lambda r: r["dtype"]), ("stack K f D", stack),
        ("receptive field", lambda r: r["receptive_field"]), ("length", lambda r: r["length"]),
        ("stack ms", lambda r: milliseconds(r["conv_ms"])), ("% of limit", share),
        ("speed-up over one thread (its % of limit)", of_one_thread), ("FFT", contender("fft_given_ms")),
        ("FFT, generated", contender("fft_generated_ms")), ("torch.fft", contender("torch_fft_ms")),
        ("scan", contender("scan_ms")), (levels, contender("levels_ms")), ("conv1d", contender("torch_conv1d_ms"))]))
    if run.name == "conv_vs_fft" and run.path.with_name("speedup.svg").exists():
        text.append(f"![Speed-up over the FFT recurrence against length]({run.folder}/speedup.svg)")
    return "Convolution stacks against the FFT recurrence" + pages_of(run), text


def pages_of(run):
    """The part of a title that tells the pages of memory, where they are not those that any program gets."""
    return ", 2 MB pages" if run.data.get("huge_pages") else ""


def extents_page(run):
    text = [EXTENTS]
    named = lambda *more: [("", lambda r: r["direction"]), ("stack K f D", stack), *more]
    number = lambda key, form=digits: lambda r: form(r[key])
    own = {t: [r for r in run.rows if r["table"] == t] for t in ("layouts", "tokens", "short", "pages")}
    if own["layouts"]:
        first = own["layouts"][0]
        text += [f"Layouts, batch {first['batch']}, {first['channels']} channels; the ratio is that of the times.",
                 columns(own["layouts"], named(
                     ("length", lambda r: r["length"]),
                     ("channels-first ms", number("channels_first_ms", milliseconds)),
                     ("% of limit", number("channels_first_percent", integer)),
                     ("channels-last ms", number("channels_last_ms", milliseconds)),
                     ("% of limit", lambda r: f"{integer(r['channels_last_percent'])} {r['limit']}"),
                     ("ratio", number("ratio"))))]
    if own["tokens"]:
        text += [EXTENTS_TOKENS.format(**own["tokens"][0]), columns(own["tokens"], [
            ("stack K f D", stack), ("tokens a call", lambda r: r["length"]),
            ("channels-first, one thread", number("channels_first_one_thread_ns")),
            ("all threads", number("channels_first_ns")),
            ("channels-last, one thread", number("channels_last_one_thread_ns")),
            ("all threads", number("channels_last_ns"))])]
    if own["short"]:
        text += [EXTENTS_SHORT.format(**own["short"][0]), columns(own["short"], named(
            ("layout", lambda r: r["layout"]), ("batch x length", lambda r: f"{r['batch']} x {r['length']}"),
            ("ms", number("ms", milliseconds)), ("% of limit", lambda r: f"{integer(r['percent'])} {r['limit']}"),
            ("overhead %", number("overhead_percent", integer))))]
    if own["pages"]:
        text += ["Tensors in 4 KB pages and in 2 MB pages; the ratio is that of the times.",
                 columns(own["pages"], named(
                     ("batch x channels x length", lambda r: f"{r['batch']} x {r['channels']} x {r['length']}"),
                     ("4 KB pages ms", number("small_pages_ms", milliseconds)),
                     ("% of limit", number("small_pages_percent", integer)),
                     ("2 MB pages ms", number("huge_pages_ms", milliseconds)),
                     ("% of limit", lambda r: f"{integer(r['huge_pages_percent'])} {r['limit']}"),
                     ("ratio", number("ratio"))))]
    return "Layouts, a few tokens, many short sequences, pages", text
