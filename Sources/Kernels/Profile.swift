/// Kinds of work that a run's time goes to.
package enum Work: String, CaseIterable, Sendable {
  case linear
  case convolution
  case attention
  case quantisation
  case normalisation
  case elementwise
}

/// Where a run's time goes. Costs two looks at the clock a region.
package final class Profile {
  package struct Entry: Sendable {
    package var seconds = 0.0
    /// Multiply-accumulates of matrix products and attention.
    package var products = 0
    package var regions = 0
  }
  package private(set) var entries: [Work: Entry] = [:]

  package init() {}

  func add(_ work: Work, seconds: Double, products: Int) {
    entries[work, default: Entry()].seconds += seconds
    entries[work, default: Entry()].products += products
    entries[work, default: Entry()].regions += 1
  }
}
