"""Numbers and tables of the pages."""


def digits(value, unit=""):
    """Three significant digits; a dash for what was not measured."""
    if value is None:
        return "-"
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{unit}"


def integer(value):
    return "-" if value is None else f"{value:.0f}"


def milliseconds(value):
    return f"{value:.3f}" if value is not None and value < 0.9995 else digits(value)


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def span(values, unit="x"):
    return f"{digits(min(values), unit)} to {digits(max(values), unit)}"


def columns(rows, wanted):
    """A table of (head, function of a row); columns in which no row has a value are left out."""
    filled = [(head, [cell(r) for r in rows]) for head, cell in wanted]
    filled = [(head, cells) for head, cells in filled if any(c != "-" for c in cells)]
    return table([head for head, _ in filled], zip(*(cells for _, cells in filled)))
