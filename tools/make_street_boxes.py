"""Makes data/street-boxes.txt: boxes with track numbers of the people in data/street.mp4, as MOTChallenge writes them.

    python tools/make_street_boxes.py data/street.mp4 data/street-boxes.txt

No neural network and no labels: the camera is fixed, so what differs from OpenCV's background model (a mixture of Gaussians
for each pixel; Zivkovic 2004) and has the size and shape of a person is one. A tracker gives each detection to the track
whose box, moved on at its last speed, overlaps it most. Tracks of less than MIN_BOXES detections are left out; gaps of up
to MAX_GAP frames are filled by straight lines. Where people pass each other their blobs become one, which is no person by its
shape: a track ends there and another begins, so one person has several numbers in the course of the clip.
Needs (made with): numpy==2.4.6, opencv-python-headless==4.14.0.*
"""
import sys

import cv2
import numpy as np

HEIGHT, SHAPE, FILLED = (36, 150), (1.4, 4.5), 0.4
MIN_OVERLAP, MAX_GAP, MIN_BOXES = 0.3, 6, 15
# Frames that only teach the background model; they are seen again from the first on.
WARM_UP = 200


def detect(path):
    model = cv2.createBackgroundSubtractorMOG2(history=300, varThreshold=25, detectShadows=True)
    frames = read(path)
    for frame in frames[:WARM_UP]:
        model.apply(frame)
    return [found(model.apply(frame)) for frame in frames]


def read(path):
    video, frames = cv2.VideoCapture(path), []
    while True:
        there, frame = video.read()
        if not there:
            return frames
        frames.append(frame)


def found(mask):
    mask = np.where(mask == 255, 255, 0).astype(np.uint8)  # 127: a shadow
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((13, 5), np.uint8))
    people = []
    for x, y, w, h, area in cv2.connectedComponentsWithStats(mask)[2][1:]:
        filled = area / (w * h)
        if HEIGHT[0] <= h <= HEIGHT[1] and SHAPE[0] <= h / w <= SHAPE[1] and filled >= FILLED:
            people.append((np.array([x, y, w, h], float), float(filled)))
    return people


def overlap(a, b):
    left, top = max(a[0], b[0]), max(a[1], b[1])
    right, bottom = min(a[0] + a[2], b[0] + b[2]), min(a[1] + a[3], b[1] + b[3])
    both = max(right - left, 0) * max(bottom - top, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def track(frames):
    tracks, live = [], []
    for t, found in enumerate(frames):
        live = [x for x in live if t - x[-1][0] <= MAX_GAP]
        pairs = []
        for i, path in enumerate(live):
            (last, box, _), speed = path[-1], np.zeros(4)
            if len(path) > 3:
                before = path[-4]
                speed = (box - before[1]) / (last - before[0])
                speed[2:] = 0
            for j, (other, _) in enumerate(found):
                pairs.append((overlap(box + speed * (t - last), other), i, j))
        used_tracks, used_boxes = set(), set()
        for value, i, j in sorted(pairs, reverse=True):
            if value >= MIN_OVERLAP and i not in used_tracks and j not in used_boxes:
                used_tracks.add(i), used_boxes.add(j)
                live[i].append((t, *found[j]))
        for j, detection in enumerate(found):
            if j not in used_boxes:
                live.append([(t, *detection)])
                tracks.append(live[-1])
    return [x for x in tracks if len(x) >= MIN_BOXES]


def rows(tracks):
    for number, path in enumerate(tracks, 1):
        for (t, box, weight), later in zip(path, path[1:] + [None]):
            yield t, number, box, weight
            if later is not None:
                for between in range(t + 1, later[0]):
                    share = (between - t) / (later[0] - t)
                    yield between, number, box + share * (later[1] - box), min(weight, later[2])


def main(video, out):
    frames = detect(video)
    lines = sorted(rows(track(frames)), key=lambda x: (x[0], x[1]))
    with open(out, "w") as file:
        for t, number, box, weight in lines:
            file.write(f"{t + 1},{number},{','.join(f'{v:.1f}' for v in box)},{weight:.2f},1,1\n")
    print(f"{out}: {len(frames)} frames, {len(lines)} boxes, {len({x[1] for x in lines})} tracks")


if __name__ == "__main__":
    main(*sys.argv[1:])
