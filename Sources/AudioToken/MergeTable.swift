/// Which pairs of tokens merge, and into what: a hash table over the list of merges.
struct MergeTable: Sendable {
  /// [merges, 3]: left, right, result.
  private let merges: [Int32]
  /// Open addressing with linear probing; a rank, or -1. At most half full.
  private var slots: [Int32]
  private let mask: Int

  /// Merges in rank order, flat [merges, 3], each id in 0..<2^31.
  init(_ merges: [Int32]) throws(TokenizerError) {
    self.merges = merges
    let count = merges.count / 3
    var size = 16
    while size < 2 * count { size *= 2 }
    mask = size - 1
    slots = [Int32](repeating: -1, count: size)
    for rank in 0..<count {
      let (left, right) = (merges[3 * rank], merges[3 * rank + 1])
      let slot = slot(of: left, right)
      guard slots[slot] < 0 else { throw .repeatedMerge(left: left, right: right) }
      slots[slot] = Int32(rank)
    }
  }

  /// The slot that holds the pair, or the free one where it would go.
  private func slot(of left: Int32, _ right: Int32) -> Int {
    let key = UInt64(UInt32(bitPattern: left)) << 32 | UInt64(UInt32(bitPattern: right))
    var slot = Int(truncatingIfNeeded: (key &* 0x9E37_79B9_7F4A_7C15) >> 32) & mask
    while slots[slot] >= 0 {
      let rank = Int(slots[slot])
      if merges[3 * rank] == left, merges[3 * rank + 1] == right { break }
      slot = (slot + 1) & mask
    }
    return slot
  }

  private func rank(_ left: Int32, _ right: Int32) -> Int32? {
    let rank = slots[slot(of: left, right)]
    return rank < 0 ? nil : rank
  }

  /// Joins adjacent tokens, the pair of lowest rank first and the leftmost of equals, until no pair merges.
  ///
  /// A queue of candidate pairs over a linked list: a word of n bytes takes n log n steps, however long.
  func merge(_ tokens: [Int32]) -> [Int32] {
    var tokens = tokens
    var next = Array(1..<tokens.count + 1)
    var previous = Array(-1..<tokens.count - 1)
    var queue = CandidateQueue()
    func candidate(at left: Int) -> CandidateQueue.Candidate? {
      guard left >= 0, next[left] < tokens.count else { return nil }
      return rank(tokens[left], tokens[next[left]]).map { .init(rank: $0, position: Int32(left)) }
    }
    for left in tokens.indices { queue.push(candidate(at: left)) }
    while let best = queue.pop() {
      let left = Int(best.position)
      // One of the two may have merged with its other neighbour since.
      guard tokens[left] >= 0, candidate(at: left)?.rank == best.rank else { continue }
      let right = next[left]
      tokens[left] = merges[3 * Int(best.rank) + 2]
      tokens[right] = -1
      next[left] = next[right]
      if next[right] < tokens.count { previous[next[right]] = left }
      queue.push(candidate(at: previous[left]))
      queue.push(candidate(at: left))
    }
    return tokens.filter { $0 >= 0 }
  }
}

/// A binary heap of pairs that could merge, lowest rank first, then leftmost.
private struct CandidateQueue {
  struct Candidate {
    let rank: Int32
    let position: Int32
    func precedes(_ other: Candidate) -> Bool { (rank, position) < (other.rank, other.position) }
  }

  private var heap: [Candidate] = []

  mutating func push(_ candidate: Candidate?) {
    guard let candidate else { return }
    var child = heap.count
    heap.append(candidate)
    while child > 0, heap[child].precedes(heap[(child - 1) / 2]) {
      heap.swapAt(child, (child - 1) / 2)
      child = (child - 1) / 2
    }
  }

  mutating func pop() -> Candidate? {
    guard let last = heap.popLast() else { return nil }
    guard let first = heap.first else { return last }
    heap[0] = last
    var parent = 0
    while true {
      let children = (2 * parent + 1)..<min(2 * parent + 3, max(heap.count, 2 * parent + 1))
      guard let least = children.min(by: { heap[$0].precedes(heap[$1]) }), heap[least].precedes(heap[parent]) else {
        break
      }
      heap.swapAt(parent, least)
      parent = least
    }
    return first
  }
}
