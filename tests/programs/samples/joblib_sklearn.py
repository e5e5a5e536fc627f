

from joblib import Parallel, delayed
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score


def square(number):
    return number * number


if __name__ == "__main__":
    features, labels = make_classification(n_samples=300, random_state=0)
    forest = RandomForestClassifier(n_estimators=10, random_state=0)
    for backend in ("multiprocessing", "loky"):
        print(Parallel(n_jobs=2, backend=backend)(delayed(square)(n) for n in range(10)))
    scores = [cross_val_score(forest, features, labels, cv=3, n_jobs=n).tolist() for n in (1, 2)]
    print(scores[0] == scores[1])

