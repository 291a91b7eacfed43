"""Write ``docs/families.md``."""

from tests.engine.families.bench import build, loaded
from tests.engine.families.configs import OWN
from tests.engine.families.report import PAGE, line, unable, written


def main() -> None:
    rows = []
    for family in sorted(OWN, key=str.casefold):
        try:
            rows.append(line(family, loaded(family, build(family))))
        except RuntimeError:
            rows.append(unable(family))
    PAGE.write_text(written(rows))


if __name__ == "__main__":
    main()
